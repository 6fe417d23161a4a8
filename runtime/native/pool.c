/* pool.c - threads that wait for jobs: first spinning for some microseconds, since a layer takes no
 * longer, then asleep. */
#include "pool.h"

#if defined(COC_NO_THREADS)

size_t coc_pool_bytes(uint32_t threads) {
    (void)threads;
    return 0;
}

coc_status coc_pool_start(void *memory, uint32_t threads, coc_pool **pool) {
    (void)memory, (void)threads;
    *pool = NULL;
    return COC_OK;
}

void coc_pool_stop(coc_pool *pool) {
    (void)pool;
}

coc_status coc_pool_ready(coc_pool *pool) {
    (void)pool;
    return COC_OK;
}

void coc_pool_run(coc_pool *pool, coc_job job, void *context) {
    (void)pool, (void)job, (void)context;
}

#else

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#define SPINS 2000

typedef struct {
    pthread_t thread;
    coc_pool *pool;
    uint32_t part;
} worker;

struct coc_pool {
    pthread_mutex_t mutex;
    pthread_cond_t begin, end;
    atomic_uint generation; /* of jobs; changes under the mutex */
    atomic_uint pending;    /* parts of the job that other threads have not finished */
    coc_job job;            /* NULL: stop */
    void *context;
    uint32_t threads, started;
    pid_t process; /* whose threads these are; 0: nobody's */
    worker workers[];
};

static void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Wait until `*value` equals or, if `differs`, no longer equals `other`; the writer signals under the mutex. */
static void await(coc_pool *pool, pthread_cond_t *signal, atomic_uint *value, unsigned other, int differs) {
    for (int i = 0; i < SPINS; i++) {
        if ((atomic_load_explicit(value, memory_order_acquire) != other) == differs)
            return;
        relax();
    }
    pthread_mutex_lock(&pool->mutex);
    while ((atomic_load_explicit(value, memory_order_acquire) != other) != differs)
        pthread_cond_wait(signal, &pool->mutex);
    pthread_mutex_unlock(&pool->mutex);
}

static void *work(void *argument) {
    worker *self = argument;
    coc_pool *pool = self->pool;
    for (unsigned seen = 0;; seen++) {
        await(pool, &pool->begin, &pool->generation, seen, 1);
        if (pool->job == NULL)
            return NULL;
        pool->job(pool->context, self->part);
        if (atomic_fetch_sub_explicit(&pool->pending, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&pool->mutex);
            pthread_cond_signal(&pool->end);
            pthread_mutex_unlock(&pool->mutex);
        }
    }
}

static void announce(coc_pool *pool, coc_job job, void *context) {
    pool->job = job;
    pool->context = context;
    atomic_store_explicit(&pool->pending, pool->started, memory_order_relaxed);
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add_explicit(&pool->generation, 1, memory_order_release);
    pthread_cond_broadcast(&pool->begin);
    pthread_mutex_unlock(&pool->mutex);
}

size_t coc_pool_bytes(uint32_t threads) {
    return threads > 1 ? sizeof(coc_pool) + (threads - 1) * sizeof(worker) : 0;
}

static coc_status start_workers(coc_pool *pool) {
    while (pool->started + 1 < pool->threads) {
        worker *next = &pool->workers[pool->started];
        next->pool = pool;
        next->part = pool->started + 1;
        if (pthread_create(&next->thread, NULL, work, next) != 0)
            return COC_ERROR_MEMORY;
        pool->started++;
    }
    return COC_OK;
}

static void finish(coc_pool *pool) {
    announce(pool, NULL, NULL);
    for (uint32_t i = 0; i < pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->end);
    pthread_cond_destroy(&pool->begin);
    pthread_mutex_destroy(&pool->mutex);
}

static coc_status initialise(coc_pool *pool) {
    pool->process = 0;
    pool->started = 0;
    atomic_init(&pool->generation, 0);
    atomic_init(&pool->pending, 0);
    if (pthread_mutex_init(&pool->mutex, NULL) != 0)
        return COC_ERROR_MEMORY;
    if (pthread_cond_init(&pool->begin, NULL) != 0) {
        pthread_mutex_destroy(&pool->mutex);
        return COC_ERROR_MEMORY;
    }
    if (pthread_cond_init(&pool->end, NULL) != 0) {
        pthread_cond_destroy(&pool->begin);
        pthread_mutex_destroy(&pool->mutex);
        return COC_ERROR_MEMORY;
    }
    if (start_workers(pool) != COC_OK) {
        finish(pool);
        return COC_ERROR_MEMORY;
    }
    pool->process = getpid();
    return COC_OK;
}

coc_status coc_pool_start(void *memory, uint32_t threads, coc_pool **pool) {
    *pool = NULL;
    if (threads <= 1)
        return COC_OK;
    coc_pool *made = memory;
    made->threads = threads;
    const coc_status status = initialise(made);
    if (status == COC_OK)
        *pool = made;
    return status;
}

/* Threads stay behind when a process forks, whatever they held: the child begins anew. */
coc_status coc_pool_ready(coc_pool *pool) {
    return pool == NULL || pool->process == getpid() ? COC_OK : initialise(pool);
}

void coc_pool_stop(coc_pool *pool) {
    if (pool != NULL && pool->process == getpid())
        finish(pool);
}

void coc_pool_run(coc_pool *pool, coc_job job, void *context) {
    announce(pool, job, context);
    job(context, 0);
    await(pool, &pool->end, &pool->pending, 0, 0);
}

#endif
