/* coc.h - run models of coc-deploy (.coc files) from C and C++.
 *
 *   coc_model *model;
 *   coc_session *session = NULL;
 *   int64_t label, taken;
 *   float confidence;
 *   const coc_result result = {.label = &label, .exit = &taken, .confidence = &confidence};
 *   coc_status status = coc_model_open("model.coc", NULL, &model);
 *   if (status == COC_OK) status = coc_session_create(model, NULL, &session);
 *   if (status == COC_OK) status = coc_run(session, pixels, 1, COC_PLANAR, &result);
 *   if (status != COC_OK) fprintf(stderr, "%s\n", coc_strerror(status));
 *   coc_session_free(session);
 *   coc_model_free(model);
 *
 * A model is immutable once opened: any number of threads may read it and create sessions on it. A
 * session belongs to one thread at a time. A model outlives its sessions. Nothing is global, nothing
 * prints, nothing exits. coc_run does not allocate. After a fork models and sessions work in the child,
 * too: a session's threads are started again by its first run there.
 *
 * Images are raw bytes 0..255, exactly as decoded; the normalisation is inside the model. Logits are
 * exact: every back end and every CPU computes the same numbers. docs/format.md describes the file.
 *
 * Floating point has to round to nearest, ties to even, as in every program that has not called
 * fesetround: opening, creating a session and running look, and return COC_ERROR_ROUNDING otherwise. The
 * threads of a session take their mode from the one that creates it. Flushing of denormal numbers to
 * zero (FTZ and DAZ, which linking with -ffast-math may turn on) changes no result.
 */
#ifndef COC_H
#define COC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(_WIN32)
#define COC_API __declspec(dllexport)
#elif defined(__GNUC__)
#define COC_API __attribute__((visibility("default")))
#else
#define COC_API
#endif

#define COC_VERSION "0.1.0"
#define COC_MAX_EXITS 16
#define COC_MAX_CLASSES 65536
#define COC_MAX_THREADS 64

/* What a function returns. COC_OK is 0. */
typedef enum {
    COC_OK = 0,
    COC_ERROR_ARGUMENT,    /* a pointer is NULL, a count or an option is out of range */
    COC_ERROR_OPEN,        /* the file cannot be opened or read, or is no regular file */
    COC_ERROR_MAGIC,       /* not a .coc file */
    COC_ERROR_VERSION,     /* a newer format than this library reads */
    COC_ERROR_TRUNCATED,   /* shorter than its header says, or than its contents need */
    COC_ERROR_CHECKSUM,    /* damaged: the checksum does not hold */
    COC_ERROR_MALFORMED,   /* a count, offset, shape, index or width that no legal file has */
    COC_ERROR_LIMIT,       /* legal, but larger than the stated limits */
    COC_ERROR_MEMORY,      /* the allocator returned NULL, or the arena is too small */
    COC_ERROR_UNSUPPORTED, /* `cpu` or COC_CPU names a level that this CPU or this build does not have */
    COC_ERROR_ROUNDING,    /* the calling thread does not round to nearest */
    COC_STATUS_COUNT
} coc_status;

/* One line for a status, never NULL; static storage. */
COC_API const char *coc_strerror(coc_status status);

/* Where memory comes from. allocate returns at least `bytes`, aligned to 64, or NULL. */
typedef struct {
    void *(*allocate)(void *user, size_t bytes);
    void (*release)(void *user, void *memory);
    void *user;
} coc_allocator;

typedef struct coc_model coc_model;
typedef struct coc_session coc_session;

/* Read a model. allocator NULL: aligned memory from the C library. On failure *model is NULL.
 * coc_model_from_memory copies what it needs; `data` may go away afterwards. */
COC_API coc_status coc_model_open(const char *path, const coc_allocator *allocator, coc_model **model);
COC_API coc_status coc_model_from_memory(const void *data, size_t size, const coc_allocator *allocator,
                                         coc_model **model);
COC_API void coc_model_free(coc_model *model); /* NULL is fine */

/* What the outputs of a model are. */
typedef enum {
    COC_CLASSIFICATION = 0, /* logits of classes; confidence is the maximum softmax probability */
    COC_REGRESSION = 1,     /* `classes` real numbers; confidence is minus the largest difference from the
                             * outputs of the exit before, and -INFINITY at exit 0 */
} coc_task;

/* What a model is. */
typedef struct {
    uint32_t channels, height, width;      /* of an image */
    uint32_t classes;                      /* of a regression: how many numbers it gives */
    coc_task task;
    uint32_t exits;                        /* early exits and the final one, 1 to COC_MAX_EXITS + 1 */
    float thresholds[COC_MAX_EXITS];       /* exits - 1 of them, as stored in the file */
    uint64_t bitops[COC_MAX_EXITS + 1];    /* BitOps of an image that leaves at exit k */
    uint64_t macs[COC_MAX_EXITS + 1];      /* multiply-accumulates likewise */
} coc_model_info;

COC_API coc_status coc_model_inspect(const coc_model *model, coc_model_info *info);

/* How a session runs. Zero-initialise it for the defaults. */
typedef struct {
    const float *thresholds;         /* exits - 1 of them; NULL: the model's. 0 always leaves, above 1 never;
                                      * negative numbers and NaN are refused. Of a regression they are
                                      * tolerances: an image leaves at exit k where its outputs and those of
                                      * exit k - 1 differ by at most thresholds[k]; never at exit 0 */
    uint32_t threads;                /* up to COC_MAX_THREADS; 0 and 1: the calling thread alone. Results do not
                                      * depend on it. The others start and end with the session */
    void *arena;                     /* memory of the caller, aligned to 64; NULL: from the model's allocator */
    size_t arena_bytes;              /* at least coc_session_bytes */
    const char *cpu;                 /* "scalar", "avx2", "avxvnni", "avx512", "neon"; NULL: COC_CPU, else the best */
} coc_session_options;

/* Bytes of arena that a session with these options needs, prepared weights included; the number depends on
 * the level of the CPU. 0 when the options are wrong. */
COC_API size_t coc_session_bytes(const coc_model *model, const coc_session_options *options);

COC_API coc_status coc_session_create(const coc_model *model, const coc_session_options *options,
                                      coc_session **session);
COC_API void coc_session_free(coc_session *session); /* NULL is fine; a caller's arena stays the caller's */

/* The level of kernels that a session runs, e.g. "avx2". */
COC_API const char *coc_session_cpu(const coc_session *session);

/* The levels that this build and this CPU have: index 0 is the best, the last is "scalar"; NULL beyond. */
COC_API const char *coc_cpu_level(size_t index);

typedef enum {
    COC_PLANAR = 0,      /* [count][channels][height][width] */
    COC_INTERLEAVED = 1, /* [count][height][width][channels], as image libraries decode */
} coc_layout;

/* Where results go: caller's arrays of `count` elements; each may be NULL if it is not wanted. */
typedef struct {
    float *logits;       /* [count][classes], at the exit taken */
    int64_t *label;      /* the class of the largest logit; the first of equals; 0 of a regression */
    int64_t *exit;       /* 0 to exits - 1 */
    float *confidence;   /* at the exit taken; see coc_task */
    int64_t *bitops;     /* spent */
} coc_result;

/* Run `count` images (0 is fine), each up to the first exit that lets it go. */
COC_API coc_status coc_run(coc_session *session, const uint8_t *images, size_t count, coc_layout layout,
                           const coc_result *result);

/* Logits of every exit, nothing left early: float [exits][count][classes]. For calibration and checks. */
COC_API coc_status coc_run_all_exits(coc_session *session, const uint8_t *images, size_t count, coc_layout layout,
                                     float *logits);

/* An operator of a model: where its time goes is coc_profile's answer, what it costs this one's. */
typedef struct {
    const char *kind;      /* "Conv", "Add", "GlobalAveragePool", "Linear", ...; static storage */
    uint32_t exit;         /* the first exit that needs it */
    uint64_t macs, bitops; /* per image; 0 where it has no weights */
} coc_operator;

/* How many operators a model has; they are numbered in the order of the file, which is that of running. */
COC_API uint32_t coc_model_operators(const coc_model *model);
COC_API coc_status coc_model_operator(const coc_model *model, uint32_t index, coc_operator *found);

/* Run `count` images, nothing left early, and measure: uint64_t [count][coc_model_operators + 1], the
 * nanoseconds of each operator and, last, of everything else (pixels into planes, confidences of the exits).
 * A row adds up to what its image took. Reading the clock costs some ten nanoseconds an operator; coc_run
 * reads none. Run a few images first: the first one finds cold caches. */
COC_API coc_status coc_profile(coc_session *session, const uint8_t *images, size_t count, coc_layout layout,
                               uint64_t *nanoseconds);

#ifdef __cplusplus
}
#endif

#endif
