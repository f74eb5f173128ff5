// What the language of the kernels (cuda_shim.h) and the machine that runs them (scheduler.cpp, memory.cpp) share.
#pragma once

#include <cstddef>
#include <cstdint>

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace emulator {

constexpr int warp_lanes = 32;
constexpr int most_threads = 1024;
constexpr std::size_t most_shared = 227 * 1024;  // bytes a block can have on sm_90
constexpr std::size_t stack_bytes = 64 * 1024;   // of a thread

struct Place {
    const char* file;
    int line;
};

// threadIdx and its companions.
struct Indices {
    uint3 thread, block;
    dim3 block_size, grid_size;
};
extern Indices indices;

enum class Collective { sync, shuffle, vote, call };
enum class Source { index, up, down, exclusive_or };

struct Shuffle {
    Source source;
    int operand, width;
};

using WarpFunction = void (*)(void** of_each_lane);

// Called by a thread of a kernel; each returns when the threads it waits for have arrived.
void barrier(Place place);
std::uint32_t collective(Collective kind, unsigned mask, Place place, std::uint32_t value, Shuffle shuffle);
void warp_call(Place place, void* argument, WarpFunction function);  // `function` runs once, for all 32 lanes

enum class Access : std::uint8_t { read, write, atomic };
void atomic_access(const void* address, std::size_t size, Place place);

// A kernel as the launcher sees it. Kinds of parameters: -8 a pointer, size in bytes an integer, 100 + size a float.
struct Kernel {
    const char* name;
    void (*run)(void** arguments);
    int parameters;
    const int* kinds;
    int most_threads;  // of __launch_bounds__
};

}  // namespace emulator
