#include "parallel.h"

#include <pthread.h>

#include <atomic>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace nst {
namespace {

std::atomic<int> wanted{1};
std::atomic<bool> forked{false};

void remember_fork() { forked.store(true, std::memory_order_relaxed); }

thread_local int pinned = 0;  // 0: not pinned

const int registered = pthread_atfork(nullptr, nullptr, remember_fork);

}  // namespace

int num_threads() {
#ifdef _OPENMP
    if (pinned > 0) return pinned;
    return forked.load(std::memory_order_relaxed) ? 1 : wanted.load(std::memory_order_relaxed);
#else
    return 1;
#endif
}

void set_num_threads(int n) { wanted.store(n, std::memory_order_relaxed); }

PinnedThreads::PinnedThreads() { pinned = num_threads(); }
PinnedThreads::~PinnedThreads() { pinned = 0; }

int thread_index() {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

}  // namespace nst
