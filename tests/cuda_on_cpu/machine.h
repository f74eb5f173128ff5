// Inside of the emulator: the threads of the block that runs, and what is reported about them.
#pragma once

#include <string>
#include <vector>

#include "emulator.h"

namespace emulator {

enum class State { ready, at_barrier, in_warp, left };

// A CUDA thread: a fiber with a stack of its own.
struct Thread {
    void* saved_sp = nullptr;
    char* stack = nullptr;
    State state = State::ready;
    Place place = {};
    uint3 index = {};
    unsigned syncs = 0;  // how often __syncwarp has ordered its memory
    // of the warp collective that it waits in
    Collective collective = Collective::sync;
    unsigned mask = 0;
    std::uint32_t value = 0, result = 0;
    Shuffle shuffle = {};
    void* argument = nullptr;
    WarpFunction function = nullptr;
};

struct Launch {
    const Kernel* kernel = nullptr;
    void** arguments = nullptr;
    std::size_t dynamic_bytes = 0;
    std::uint32_t number = 0;   // of this launch
    std::uint64_t block = 0;    // the blocks since the program began
    std::uint32_t in_grid = 0;  // the block's number in its grid
    std::uint32_t barriers = 0;
    int threads = 0;
};

extern Launch launch;
extern std::vector<Thread> threads;
extern Thread* running;  // null outside of the kernel
extern "C" thread_local unsigned char dynamic_shared[most_shared];

inline int running_number() { return static_cast<int>(running - threads.data()); }

// Where something was found: a line of the source, or an instruction, whose line the Python side looks up.
struct Origin {
    const void *instruction = nullptr, *frame = nullptr;  // the frame on the stack of who asks
    Place place = {};
    Origin(const void* address, const void* on_stack) : instruction(address), frame(on_stack) {}
    Origin(Place line) : place(line) {}
};

// One line a finding; the same place and kind is said once a launch.
void report(const Origin& origin, const char* kind, const char* format, ...) __attribute__((format(printf, 3, 4)));

[[noreturn]] void end_thread();

// The checker, of the checked build.
void start_launch(void** pointers, int count);
void start_block();

// The lint, of the counting build.
extern bool counting;
void start_counting();
void note_access(const char* address, std::size_t size, std::size_t alignment, Access access, bool shared,
                 const Origin& origin);
void come_together(int warp, unsigned mask);  // these lanes wait for each other, or have left

}  // namespace emulator
