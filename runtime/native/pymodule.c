/* pymodule.c - coc.h for Python: module coc_runtime._native, used by coc_runtime/backends/native.py alone.
 *
 * A Runner holds a model and as many sessions as threads have run it at once. The list of idle sessions is
 * guarded by the GIL, which is released while a session runs.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

#include "coc.h"

#include <string.h>

typedef struct {
    PyObject *error; /* coc_runtime.errors.CocError */
} module_state;

typedef struct {
    PyObject_HEAD
    coc_model *model;
    coc_model_info info;
    float thresholds[COC_MAX_EXITS];
    uint32_t threads;
    char cpu[16]; /* the level that all sessions run */
    coc_session **idle;
    size_t idle_count, made;
} runner;

static PyObject *fail(runner *self, coc_status status) {
    PyObject *module = PyType_GetModule(Py_TYPE((PyObject *)self));
    module_state *state = module == NULL ? NULL : PyModule_GetState(module);
    if (state != NULL)
        PyErr_SetString(state->error, coc_strerror(status));
    return NULL;
}

static coc_session_options options_of(const runner *self) {
    return (coc_session_options){
        .thresholds = self->thresholds, .threads = self->threads, .cpu = self->cpu[0] == 0 ? NULL : self->cpu};
}

static coc_status add_session(runner *self, coc_session **session) {
    const coc_session_options options = options_of(self);
    coc_session **grown = PyMem_Realloc(self->idle, (self->made + 1) * sizeof *grown);
    if (grown == NULL)
        return COC_ERROR_MEMORY;
    self->idle = grown;
    const coc_status status = coc_session_create(self->model, &options, session);
    self->made += status == COC_OK;
    return status;
}

static coc_status take_session(runner *self, coc_session **session) {
    if (self->idle_count == 0)
        return add_session(self, session);
    *session = self->idle[--self->idle_count];
    return COC_OK;
}

static void give_session(runner *self, coc_session *session) {
    self->idle[self->idle_count++] = session;
}

/* Runner(data): open the bytes of a file. */
static PyObject *runner_new(PyTypeObject *type, PyObject *arguments, PyObject *names) {
    Py_buffer data;
    if (names != NULL && PyDict_Size(names) != 0) {
        PyErr_SetString(PyExc_TypeError, "Runner takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(arguments, "y*", &data))
        return NULL;
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    runner *self = (runner *)allocate(type, 0);
    if (self != NULL) {
        self->threads = 1;
        const coc_status status = coc_model_from_memory(data.buf, (size_t)data.len, NULL, &self->model);
        if (status == COC_OK) {
            coc_model_inspect(self->model, &self->info);
        } else {
            fail(self, status);
            Py_CLEAR(self);
        }
    }
    PyBuffer_Release(&data);
    return (PyObject *)self;
}

static void runner_dealloc(runner *self) {
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    while (self->idle_count > 0)
        coc_session_free(self->idle[--self->idle_count]);
    PyMem_Free(self->idle);
    coc_model_free(self->model);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *tuple_of(const coc_model_info *info, int bitops) {
    const uint32_t count = bitops ? info->exits : info->exits - 1;
    PyObject *tuple = PyTuple_New(count);
    for (uint32_t k = 0; tuple != NULL && k < count; k++) {
        PyObject *item = bitops ? PyLong_FromUnsignedLongLong(info->bitops[k])
                                : PyFloat_FromDouble((double)info->thresholds[k]);
        if (item == NULL || PyTuple_SetItem(tuple, k, item) != 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

/* (channels, height, width, classes, task, thresholds, bitops of each exit) */
static PyObject *runner_info(runner *self, PyObject *Py_UNUSED(none)) {
    const coc_model_info *info = &self->info;
    PyObject *thresholds = tuple_of(info, 0), *bitops = tuple_of(info, 1), *result = NULL;
    if (thresholds != NULL && bitops != NULL)
        result = Py_BuildValue("(IIIIIOO)", info->channels, info->height, info->width, info->classes,
                               (unsigned int)info->task, thresholds, bitops);
    Py_XDECREF(thresholds);
    Py_XDECREF(bitops);
    return result;
}

static int set_cpu(runner *self, const char *name) {
    const size_t size = strlen(name) + 1;
    if (size <= sizeof self->cpu)
        memcpy(self->cpu, name, size);
    return size <= sizeof self->cpu;
}

/* start(threads, thresholds: float32 bytes, cpu=None): make the first session; its level of kernels. Once. */
static PyObject *runner_start(runner *self, PyObject *arguments) {
    unsigned int threads;
    Py_buffer thresholds;
    const char *cpu = NULL;
    coc_session *session;
    if (!PyArg_ParseTuple(arguments, "Iy*|z", &threads, &thresholds, &cpu))
        return NULL;
    const size_t expected = (self->info.exits - 1) * sizeof(float);
    coc_status status = COC_ERROR_ARGUMENT;
    if ((size_t)thresholds.len == expected && self->made == 0) {
        memcpy(self->thresholds, thresholds.buf, expected);
        self->threads = threads;
        status = set_cpu(self, cpu == NULL ? "" : cpu) ? take_session(self, &session) : COC_ERROR_UNSUPPORTED;
    }
    PyBuffer_Release(&thresholds);
    if (status != COC_OK)
        return fail(self, status);
    set_cpu(self, coc_session_cpu(session)); /* whatever happens to COC_CPU, more sessions get the same */
    give_session(self, session);
    return PyUnicode_FromString(self->cpu);
}

/* Bytes of the arena of each session. */
static PyObject *runner_session_bytes(runner *self, PyObject *Py_UNUSED(none)) {
    const coc_session_options options = options_of(self);
    return PyLong_FromSize_t(coc_session_bytes(self->model, &options));
}

static void release_all(Py_buffer *buffers, Py_ssize_t count) {
    while (count > 0)
        PyBuffer_Release(&buffers[--count]);
}

/* The buffers of the images (the first, read only) and of the results, of `sizes` bytes per image. */
static Py_ssize_t take_buffers(runner *self, PyObject *const *arguments, const size_t *sizes, Py_ssize_t count,
                               Py_buffer *buffers) {
    Py_ssize_t images = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyObject_GetBuffer(arguments[i], &buffers[i], i == 0 ? PyBUF_SIMPLE : PyBUF_WRITABLE) != 0) {
            release_all(buffers, i);
            return -1;
        }
        if (i == 0)
            images = buffers[0].len / (Py_ssize_t)sizes[0];
        if (buffers[i].len != images * (Py_ssize_t)sizes[i]) {
            release_all(buffers, i + 1);
            fail(self, COC_ERROR_ARGUMENT);
            return -1;
        }
    }
    return images;
}

static size_t image_bytes(const runner *self) {
    return (size_t)self->info.channels * self->info.height * self->info.width;
}

#define MOST_ARRAYS 6

/* Some of the session's calls: the images in the first array, its results into the others. */
typedef coc_status computation(coc_session *session, const Py_buffer *arrays, size_t images);

/* A method that takes `count` arrays of `sizes` bytes per image, the images first, and computes without the GIL. */
static PyObject *compute(runner *self, computation *call, const size_t *sizes, Py_ssize_t count,
                         PyObject *const *arguments, Py_ssize_t given) {
    Py_buffer arrays[MOST_ARRAYS];
    if (given != count)
        return PyErr_Format(PyExc_TypeError, "takes %zd arrays, not %zd", count, given);
    const Py_ssize_t images = take_buffers(self, arguments, sizes, count, arrays);
    if (images < 0)
        return NULL;
    coc_session *session;
    coc_status status = take_session(self, &session);
    if (status == COC_OK) {
        Py_BEGIN_ALLOW_THREADS
        status = call(session, arrays, (size_t)images);
        Py_END_ALLOW_THREADS
        give_session(self, session);
    }
    release_all(arrays, count);
    if (status != COC_OK)
        return fail(self, status);
    return Py_NewRef(Py_None);
}

static coc_status run(coc_session *session, const Py_buffer *arrays, size_t images) {
    const coc_result result = {arrays[1].buf, arrays[2].buf, arrays[3].buf, arrays[4].buf, arrays[5].buf};
    return coc_run(session, arrays[0].buf, images, COC_PLANAR, &result);
}

/* run(images, logits, label, exit, confidence, bitops): planar images; results into the arrays. */
static PyObject *runner_run(runner *self, PyObject *const *arguments, Py_ssize_t count) {
    const size_t sizes[] = {image_bytes(self), self->info.classes * sizeof(float), 8, 8, sizeof(float), 8};
    return compute(self, run, sizes, 6, arguments, count);
}

static coc_status run_all_exits(coc_session *session, const Py_buffer *arrays, size_t images) {
    return coc_run_all_exits(session, arrays[0].buf, images, COC_PLANAR, arrays[1].buf);
}

/* run_all_exits(images, logits): logits are float32 [exits, N, classes]. */
static PyObject *runner_run_all_exits(runner *self, PyObject *const *arguments, Py_ssize_t count) {
    const size_t sizes[] = {image_bytes(self), self->info.exits * self->info.classes * sizeof(float)};
    return compute(self, run_all_exits, sizes, 2, arguments, count);
}

static coc_status profile(coc_session *session, const Py_buffer *arrays, size_t images) {
    return coc_profile(session, arrays[0].buf, images, COC_PLANAR, arrays[1].buf);
}

/* profile(images, times): times are uint64 [N, operators + 1]. */
static PyObject *runner_profile(runner *self, PyObject *const *arguments, Py_ssize_t count) {
    const size_t sizes[] = {image_bytes(self), ((size_t)coc_model_operators(self->model) + 1) * sizeof(uint64_t)};
    return compute(self, profile, sizes, 2, arguments, count);
}

/* operators(): how many the model has. */
static PyObject *runner_operators(runner *self, PyObject *Py_UNUSED(none)) {
    return PyLong_FromUnsignedLong(coc_model_operators(self->model));
}

#define FUNCTION(function) (PyCFunction)(void (*)(void))(function)

static PyMethodDef methods[] = {
    {"info", FUNCTION(runner_info), METH_NOARGS, NULL},
    {"start", FUNCTION(runner_start), METH_VARARGS, NULL},
    {"session_bytes", FUNCTION(runner_session_bytes), METH_NOARGS, NULL},
    {"run", FUNCTION(runner_run), METH_FASTCALL, NULL},
    {"run_all_exits", FUNCTION(runner_run_all_exits), METH_FASTCALL, NULL},
    {"operators", FUNCTION(runner_operators), METH_NOARGS, NULL},
    {"profile", FUNCTION(runner_profile), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, (void *)runner_new},
    {Py_tp_dealloc, (void *)runner_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {"coc_runtime._native.Runner", sizeof(runner), 0, Py_TPFLAGS_DEFAULT, slots};

/* levels(): names of the levels of kernels that can run here, best first. */
static PyObject *levels(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none)) {
    Py_ssize_t count = 0;
    while (coc_cpu_level((size_t)count) != NULL)
        count++;
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *name = PyUnicode_FromString(coc_cpu_level((size_t)i));
        if (name == NULL || PyTuple_SetItem(tuple, i, name) != 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

static PyMethodDef functions[] = {{"levels", levels, METH_NOARGS, NULL}, {NULL, NULL, 0, NULL}};

static int execute(PyObject *module) {
    module_state *state = PyModule_GetState(module);
    PyObject *errors = PyImport_ImportModule("coc_runtime.errors");
    if (errors == NULL)
        return -1;
    state->error = PyObject_GetAttrString(errors, "CocError");
    Py_DECREF(errors);
    PyObject *type = PyType_FromModuleAndSpec(module, &spec, NULL);
    const int failed = state->error == NULL || type == NULL || PyModule_AddObjectRef(module, "Runner", type) != 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static int traverse(PyObject *module, visitproc visit, void *arg) {
    module_state *state = PyModule_GetState(module);
    Py_VISIT(state->error);
    return 0;
}

static int clear(PyObject *module) {
    module_state *state = PyModule_GetState(module);
    Py_CLEAR(state->error);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "coc_runtime._native", .m_size = sizeof(module_state),
    .m_methods = functions, .m_slots = module_slots, .m_traverse = traverse, .m_clear = clear,
};

PyMODINIT_FUNC PyInit__native(void) {
    return PyModuleDef_Init(&definition);
}
