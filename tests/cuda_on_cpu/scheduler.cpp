// Runs the blocks of a grid one after the other, each CUDA thread a fiber on one thread of the machine. A fiber runs
// until it waits: at a barrier for all threads of its block, in a warp collective for the lanes of its mask. When
// nothing can go on, those that wait diverged, and that is reported.
#include "machine.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>

namespace emulator {

Indices indices;
Launch launch;
std::vector<Thread> threads;
Thread* running = nullptr;
alignas(1024) thread_local unsigned char dynamic_shared[most_shared];

namespace {

Thread host;  // the fiber that schedules the others
std::string findings;
std::set<std::string> known;
int count_findings = 0;

// Saves the registers that a call preserves on the stack of one fiber and takes those of another.
extern "C" void emulator_switch(void** save, void* to);
asm(R"(
.text
.globl emulator_switch
.type emulator_switch,@function
emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulator_switch,.-emulator_switch
)");

void wait() {
    Thread* self = running;
    running = nullptr;
    emulator_switch(&self->saved_sp, host.saved_sp);
}

void go_on(Thread& thread) {
    indices.thread = thread.index;
    running = &thread;
    emulator_switch(&host.saved_sp, thread.saved_sp);
}

void run_thread() {
    launch.kernel->run(launch.arguments);
    end_thread();
}

void prepare(Thread& thread) {
    constexpr std::size_t guard = 4096;  // a page below the stack: overflow is a fault, not another thread's memory
    if (!thread.stack) {
        void* memory = mmap(nullptr, stack_bytes + guard, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            std::fputs("emulator: no memory for the stacks of threads\n", stderr);
            std::abort();
        }
        mprotect(memory, guard, PROT_NONE);
        thread.stack = static_cast<char*>(memory) + guard;
    }
    void** sp = reinterpret_cast<void**>(thread.stack + stack_bytes - 64);
    *--sp = nullptr;  // so that the stack is aligned at the entry as after a call
    *--sp = reinterpret_cast<void*>(run_thread);
    for (int saved = 0; saved < 6; saved++) *--sp = nullptr;
    thread.saved_sp = sp;
    thread.state = State::ready;
    thread.syncs = 0;
}

// The lane whose value `lane` gets.
int source_lane(const Shuffle& how, int lane) {
    const int first = lane & ~(how.width - 1), end = first + how.width;
    int from = lane;
    switch (how.source) {
        case Source::index: return first + (how.operand & (how.width - 1));
        case Source::up: from = lane - how.operand; break;
        case Source::down: from = lane + how.operand; break;
        case Source::exclusive_or: from = lane ^ how.operand; break;
    }
    return from < first || from >= end ? lane : from;
}

void finish_shuffle(Thread* lanes, int present, int lane) {
    Thread& thread = lanes[lane];
    const int from = source_lane(thread.shuffle, lane);
    if (from >= present || !(thread.mask >> from & 1)) {
        report(thread.place, "shuffle", "lane %d reads lane %d, which is not in the mask %08x", lane, from,
               thread.mask);
        thread.result = 0xffffffffu;
    } else thread.result = lanes[from].value;
}

// Whether all lanes of `thread`'s mask have arrived where it is; their votes go to `votes`.
bool complete(const Thread* lanes, int present, const Thread& thread, unsigned& votes) {
    votes = 0;
    for (int lane = 0; lane < warp_lanes; lane++) {
        if (!(thread.mask >> lane & 1)) continue;
        if (lane >= present) return false;
        const Thread& other = lanes[lane];
        if (other.state != State::in_warp || other.collective != thread.collective || other.mask != thread.mask ||
            other.place.line != thread.place.line || std::strcmp(other.place.file, thread.place.file) != 0)
            return false;
        if (other.value) votes |= 1u << lane;
    }
    return true;
}

// Lets every warp collective of warp `w` that has all its lanes go on; true if there was one.
bool finish_collectives(int w) {
    Thread* lanes = threads.data() + w * warp_lanes;
    const int present = std::min(warp_lanes, launch.threads - w * warp_lanes);
    bool any = false;
    for (int first = 0; first < present; first++) {
        const Thread& thread = lanes[first];
        unsigned votes = 0;
        if (thread.state != State::in_warp) continue;
        if (!(thread.mask >> first & 1))
            report(thread.place, "mask", "lane %d calls with the mask %08x, which leaves it out", first, thread.mask);
        if (!complete(lanes, present, thread, votes)) continue;
        if (thread.collective == Collective::call) {
            void* arguments[warp_lanes] = {};
            for (int lane = 0; lane < present; lane++) arguments[lane] = lanes[lane].argument;
            thread.function(arguments);
        }
        const unsigned mask = thread.mask;
        come_together(w, mask);
        for (int lane = 0; lane < present; lane++) {
            if (!(mask >> lane & 1)) continue;
            if (lanes[lane].collective == Collective::shuffle) finish_shuffle(lanes, present, lane);
            else lanes[lane].result = votes;
        }
        for (int lane = 0; lane < present; lane++) {
            if (!(mask >> lane & 1)) continue;
            lanes[lane].state = State::ready;
            if (lanes[lane].collective == Collective::sync) lanes[lane].syncs++;
        }
        any = true;
    }
    return any;
}

// In which order threads run: 0 forward, 1 backward, else shuffled by it as a seed. Correct kernels do not notice.
std::uint64_t order = 0;

std::vector<int> thread_order() {
    std::vector<int> numbers(static_cast<std::size_t>(launch.threads));
    for (int i = 0; i < launch.threads; i++) numbers[i] = order == 1 ? launch.threads - 1 - i : i;
    std::uint64_t state = order;
    for (int i = launch.threads - 1; order > 1 && i > 0; i--) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        std::swap(numbers[i], numbers[(state >> 33) % static_cast<std::uint64_t>(i + 1)]);
    }
    return numbers;
}

struct Census {
    int left = 0, at_barrier = 0, in_warp = 0;
    const Thread *barrier = nullptr, *other_barrier = nullptr, *warp = nullptr;
};

Census census() {
    Census c;
    for (int i = 0; i < launch.threads; i++) {
        const Thread& t = threads[i];
        c.left += t.state == State::left;
        c.in_warp += t.state == State::in_warp;
        if (t.state == State::in_warp && !c.warp) c.warp = &t;
        if (t.state != State::at_barrier) continue;
        c.at_barrier++;
        if (!c.barrier) c.barrier = &t;
        const bool same = t.place.line == c.barrier->place.line && !std::strcmp(t.place.file, c.barrier->place.file);
        if (!same) c.other_barrier = &t;
    }
    return c;
}

void release_barrier(const Census& c) {
    const Place place = c.barrier->place;
    if (c.other_barrier)
        report(place, "divergent barrier", "other threads of block %u wait at line %d", launch.in_grid,
               c.other_barrier->place.line);
    if (c.left)
        report(place, "divergent barrier", "%d of %d threads of block %u wait, the others have left the kernel",
               c.at_barrier, launch.threads, launch.in_grid);
    launch.barriers++;
    for (int i = 0; i < launch.threads; i++)
        if (threads[i].state == State::at_barrier) threads[i].state = State::ready;
}

// False if the block can never end.
bool run_block(const std::vector<int>& numbers) {
    for (int i = 0; i < launch.threads; i++) prepare(threads[i]);
    launch.barriers = 0;
    const int warps = (launch.threads + warp_lanes - 1) / warp_lanes;
    for (;;) {
        bool progress = false;
        for (int i : numbers) {
            if (threads[i].state != State::ready) continue;
            progress = true;
            go_on(threads[i]);
        }
        for (int w = 0; w < warps; w++) progress |= finish_collectives(w);
        if (progress) continue;
        for (int w = 0; w < warps; w++) come_together(w, ~0u);
        const Census c = census();
        if (c.left == launch.threads) return true;
        if (c.in_warp) {
            report(c.warp->place, "divergent warp",
                   "waits with the mask %08x; of block %u, %d threads wait in warps, %d at a barrier, %d have left",
                   c.warp->mask, launch.in_grid, c.in_warp, c.at_barrier, c.left);
            return false;
        }
        release_barrier(c);
    }
}

}  // namespace

void report(const Origin& origin, const char* kind, const char* format, ...) {
    char place[400];
    if (origin.instruction) std::snprintf(place, sizeof(place), "@%p", origin.instruction);
    else std::snprintf(place, sizeof(place), "%s:%d", origin.place.file, origin.place.line);
    if (!known.insert(std::string(place) + kind).second) return;
    char text[400];
    va_list more;
    va_start(more, format);
    std::vsnprintf(text, sizeof(text), format, more);
    va_end(more);
    findings += std::string(place) + ": " + launch.kernel->name + ": " + kind + ": " + text + "\n";
    count_findings++;
}

void end_thread() {
    running->state = State::left;
    wait();
    std::abort();  // a thread that has left is not resumed
}

void barrier(Place place) {
    running->state = State::at_barrier;
    running->place = place;
    wait();
}

std::uint32_t collective(Collective kind, unsigned mask, Place place, std::uint32_t value, Shuffle shuffle) {
    Thread* self = running;
    self->state = State::in_warp;
    self->collective = kind;
    self->mask = mask;
    self->place = place;
    self->value = value;
    self->shuffle = shuffle;
    wait();
    return self->result;
}

void warp_call(Place place, void* argument, WarpFunction function) {
    running->argument = argument;
    running->function = function;
    collective(Collective::call, ~0u, place, 0, {});
}

}  // namespace emulator

using namespace emulator;

extern "C" {

// In which order the threads of a block run from now on.
void emulator_order(std::uint64_t chosen) { order = chosen; }

const char* emulator_findings() { return findings.c_str(); }

// Runs a grid; gives the number of findings. `pointers` are the arguments that are arrays.
int emulator_launch(const Kernel* kernel, const unsigned* grid, const unsigned* block, std::size_t shared_bytes,
                    void** arguments, void** pointers, int pointer_count) {
    findings.clear();
    known.clear();
    count_findings = 0;
    launch.kernel = kernel;
    launch.arguments = arguments;
    launch.dynamic_bytes = shared_bytes;
    launch.number++;
    launch.threads = static_cast<int>(block[0] * block[1] * block[2]);
    indices.block_size = {block[0], block[1], block[2]};
    indices.grid_size = {grid[0], grid[1], grid[2]};
    if (threads.size() < static_cast<std::size_t>(launch.threads)) threads.resize(most_threads);
    for (unsigned i = 0; i < static_cast<unsigned>(launch.threads); i++)
        threads[i].index = {i % block[0], i / block[0] % block[1], i / (block[0] * block[1])};
    const std::vector<int> numbers = thread_order();
    start_launch(pointers, pointer_count);
    start_counting();
    launch.in_grid = 0;
    for (unsigned z = 0; z < grid[2]; z++)
        for (unsigned y = 0; y < grid[1]; y++)
            for (unsigned x = 0; x < grid[0]; x++, launch.in_grid++) {
                launch.block++;
                indices.block = {x, y, z};
                start_block();
                if (!run_block(numbers)) return count_findings;
            }
    return count_findings;
}
}
