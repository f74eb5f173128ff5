// Threads: how many, and a loop over independent jobs.
//
// A kernel cuts its work into jobs by the shape alone, never by the number of threads, and each job writes its own
// part of the result; so the result is the same, bit for bit, whatever the number of threads.
#pragma once

#include <cstdint>

namespace nst {

int num_threads();            // what a parallel loop uses; 1 in a forked child (OpenMP does not survive fork)
void set_num_threads(int n);  // n >= 1
int thread_index();           // inside a parallel loop: 0 .. num_threads() - 1

// While one lives, num_threads() gives this thread the same number, whatever another thread sets: a kernel that has
// allocated a buffer a thread must not get more threads than buffers. NST_CALL holds one.
class PinnedThreads {
  public:
    PinnedThreads();
    ~PinnedThreads();
    PinnedThreads(const PinnedThreads&) = delete;
    PinnedThreads& operator=(const PinnedThreads&) = delete;
};

}  // namespace nst

#ifdef NST_ISA_NS
namespace nst::NST_ISA_NS {

// Calls job(i, thread) for every i in [0, jobs); the order and the thread are unspecified. job must not throw.
template <class Job>
void parallel_for(std::int64_t jobs, const Job& job) {
    const int threads = num_threads();
    if (threads == 1 || jobs <= 1) {
        for (std::int64_t i = 0; i < jobs; i++) job(i, 0);
        return;
    }
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (std::int64_t i = 0; i < jobs; i++) job(i, thread_index());
}

}  // namespace nst::NST_ISA_NS
#endif
