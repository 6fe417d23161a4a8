/* pool.h - the threads of a session (internal). Without POSIX threads (COC_NO_THREADS) every job runs on
 * the calling thread, with the same results. */
#ifndef COC_POOL_H
#define COC_POOL_H

#include "coc.h"

#if !defined(COC_NO_THREADS) && !defined(__unix__) && !defined(__APPLE__)
#define COC_NO_THREADS
#endif

typedef struct coc_pool coc_pool;

/* One part of a job; parts 0 to threads - 1 run at once. */
typedef void (*coc_job)(void *context, uint32_t part);

/* Memory that a pool of `threads` (the calling one included) needs, aligned to 64; 0 for one thread. */
size_t coc_pool_bytes(uint32_t threads);

/* Start threads - 1 threads. COC_ERROR_MEMORY: the system gives no more. `*pool` is NULL for one thread. */
coc_status coc_pool_start(void *memory, uint32_t threads, coc_pool **pool);
void coc_pool_stop(coc_pool *pool);

/* To be called before the jobs of a run: in a process that was forked off it starts the threads again. */
coc_status coc_pool_ready(coc_pool *pool);

/* Run all parts of a job, part 0 on this thread, and wait for them. */
void coc_pool_run(coc_pool *pool, coc_job job, void *context);

#endif
