/* races.c - threads of a host that share a model, a session that passes from thread to thread, sessions and their pools in
 * a forked child: for AddressSanitizer and ThreadSanitizer alike. Part of the driver. */
#include "check.h"
#include "gate.h"
#include "plan.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOSTS 4
#define IMAGES 3

static coc_model *model;
static coc_model_info info;
static uint8_t *images;
static float *expected; /* [exits][IMAGES][classes] */

static size_t image_bytes(void) {
    return (size_t)info.channels * info.height * info.width;
}

static size_t logits_count(void) {
    return (size_t)info.exits * IMAGES * info.classes;
}

static void *sized(size_t bytes) {
    void *memory = malloc(bytes);
    CHECK(memory != NULL);
    return memory;
}

static void run(coc_session *session) {
    int64_t label[IMAGES], taken[IMAGES];
    const coc_result result = {.label = label, .exit = taken};
    float *found = sized(logits_count() * sizeof(float));
    CHECK(coc_run(session, images, IMAGES, COC_PLANAR, &result) == COC_OK);
    CHECK(coc_run_all_exits(session, images, IMAGES, COC_PLANAR, found) == COC_OK);
    CHECK(memcmp(found, expected, logits_count() * sizeof(float)) == 0);
    for (size_t i = 0; i < IMAGES; i++) {
        const float *logits = expected + ((size_t)taken[i] * IMAGES + i) * info.classes;
        CHECK(label[i] == coc_argmax(logits, info.classes));
    }
    free(found);
}

static coc_session *create(const char *level, uint32_t threads) {
    const coc_session_options options = {.cpu = level, .threads = threads};
    coc_session *session;
    CHECK(coc_session_create(model, &options, &session) == COC_OK);
    return session;
}

/* A thread of the host: sessions of its own on the shared model, of every level and number of threads. */
static void *own_sessions(void *first) {
    const char *level;
    for (size_t i = 0; (level = coc_cpu_level(i)) != NULL; i++)
        for (uint32_t threads = 1; threads <= 3; threads++) {
            coc_session *session = create(level, (threads + (uint32_t)(uintptr_t)first) % 3 + 1);
            run(session);
            run(session);
            coc_session_free(session);
        }
    return NULL;
}

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

/* A session belongs to one thread at a time: whoever holds the mutex. */
static void *in_turn(void *session) {
    for (int i = 0; i < 5; i++) {
        pthread_mutex_lock(&turn);
        run(session);
        pthread_mutex_unlock(&turn);
    }
    return NULL;
}

static void hosts(void *work(void *), void *argument) {
    pthread_t threads[HOSTS];
    for (uintptr_t i = 0; i < HOSTS; i++)
        CHECK(pthread_create(&threads[i], NULL, work, argument != NULL ? argument : (void *)i) == 0);
    for (int i = 0; i < HOSTS; i++)
        pthread_join(threads[i], NULL);
}

/* The child runs a session whose threads stayed behind, and one of its own; the parent goes on with its own. */
static void forked(coc_session *session) {
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        run(session);
        coc_session *other = create(NULL, 2);
        run(other);
        coc_session_free(other);
        coc_session_free(session);
        _exit(0);
    }
    run(session);
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* forks: neither ThreadSanitizer nor QEMU supports threads that a forked child starts. */
void share_model(const void *data, size_t size, int forks) {
    CHECK(coc_model_from_memory(data, size, NULL, &model) == COC_OK && coc_model_inspect(model, &info) == COC_OK);
    images = sized(IMAGES * image_bytes());
    for (size_t i = 0; i < IMAGES * image_bytes(); i++)
        images[i] = (uint8_t)(i * 37 + (i >> 8));
    expected = sized(logits_count() * sizeof(float));
    coc_session *session = create("scalar", 1);
    CHECK(coc_run_all_exits(session, images, IMAGES, COC_PLANAR, expected) == COC_OK);
    coc_session_free(session);
    hosts(own_sessions, NULL);
    session = create(NULL, 3);
    hosts(in_turn, session);
    if (forks)
        forked(session);
    run(session);
    coc_session_free(session);
    coc_model_free(model);
    free(images);
    free(expected);
}
