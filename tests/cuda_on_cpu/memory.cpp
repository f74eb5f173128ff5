// The checker behind the calls that -fsanitize=thread puts before every access of a kernel, and behind those that
// -fsanitize=bounds,alignment,... makes when a rule is broken. The sanitizers' own libraries are not linked.
//
// Each four bytes of shared and global memory (each byte, of arrays of bytes) have a cell: who wrote last and who
// read since. Two accesses race if different threads make them, one writes, they are not both atomic, and nothing
// orders them: no barrier between threads of a block, no __syncwarp between lanes of a warp, never between blocks.
#include <link.h>

#include <cstdio>
#include <cstring>
#include <map>

#include "machine.h"

namespace emulator {
namespace {

struct Visit {
    std::int16_t thread = -1;
    bool atomic = false;
    std::uint32_t block = 0, barriers = 0, syncs = 0;
};

struct Cell {
    std::uint64_t stamp = 0;  // of the launch, or for shared memory of the block, that the visits belong to
    Visit write, reads[2];
    bool initialised = false;
};

struct Range {
    const char* begin = nullptr;
    std::size_t bytes = 0;
    bool holds(const char* p) const { return p >= begin && p < begin + bytes; }
};

struct Buffer {
    std::size_t bytes = 0, cell_bytes = 4;
    std::vector<Cell> cells;
};

struct Argument {
    Range range;
    Buffer* buffer;
    int position;  // among the arguments that are arrays
};

constexpr int word = 4;  // as which what is not aligned to its size moves

bool checking = false;
std::map<const char*, Buffer> buffers;  // by address: all that lives on the device
std::vector<Argument> visible;          // those that this launch was given
std::vector<Cell> dynamic_cells, static_cells;
Range static_shared;  // the object's thread-local storage: its static __shared__ arrays
Range image;          // the object itself: its constants

const char* verb(Access access) {
    return access == Access::read ? "read" : access == Access::write ? "write" : "atomic";
}

// Whether `before` happened before what the running thread does now.
bool ordered(const Visit& before, int now) {
    if (before.block != launch.in_grid) return false;
    if (before.thread == now || before.barriers != launch.barriers) return true;
    return before.thread / warp_lanes == now / warp_lanes && before.syncs < threads[now].syncs;
}

struct Memory {
    const char* name;
    const Origin& origin;
};

constexpr const char* array_names[] = {"array 0",  "array 1",  "array 2",  "array 3", "array 4",  "array 5",
                                       "array 6",  "array 7",  "array 8",  "array 9", "array 10", "array 11",
                                       "array 12", "array 13", "array 14", "array 15"};
constexpr int most_arrays = 16;

void report_race(const Memory& m, std::size_t offset, const char* kind, const Visit& before, int now) {
    report(m.origin, kind, "byte %zu of %s, thread %d of block %u and then thread %d of block %u", offset, m.name,
           before.thread, before.block, now, launch.in_grid);
}

void visit(Cell& cell, std::size_t offset, Access access, const Memory& m) {
    const int now = running_number();
    const Visit visit{static_cast<std::int16_t>(now), access == Access::atomic, launch.in_grid, launch.barriers,
                      threads[now].syncs};
    const bool write_matters = cell.write.thread >= 0 && !(visit.atomic && cell.write.atomic);
    if (access == Access::read) {
        if (write_matters && !ordered(cell.write, now))
            report_race(m, offset, "race, read after write", cell.write, now);
        Visit& first = cell.reads[0];
        Visit& second = cell.reads[1];
        // Two readers are kept, of different warps where there are: one of them is not ordered with a later writer.
        if (first.thread < 0 || ordered(first, now)) first = visit;
        else if (second.thread < 0 || second.thread / warp_lanes == first.thread / warp_lanes) second = visit;
        return;
    }
    if (write_matters && !ordered(cell.write, now)) report_race(m, offset, "race, write after write", cell.write, now);
    for (Visit& read : cell.reads) {
        if (read.thread >= 0 && !ordered(read, now)) report_race(m, offset, "race, write after read", read, now);
        read.thread = -1;
    }
    cell.write = visit;
}

void check_cells(Cell* cells, std::size_t cell_bytes, std::size_t offset, std::size_t size, std::uint64_t stamp,
                 bool forgets, Access access, const Memory& m) {
    for (std::size_t i = offset / cell_bytes; i <= (offset + size - 1) / cell_bytes; i++) {
        Cell& cell = cells[i];
        if (cell.stamp != stamp) {
            const bool kept = cell.initialised && !forgets;
            cell = Cell();
            cell.stamp = stamp;
            cell.initialised = kept;
        }
        if (access != Access::write && !cell.initialised)
            report(m.origin, "uninitialised", "%s of byte %zu of %s, thread %d of block %u", verb(access),
                   i * cell_bytes, m.name, running_number(), launch.in_grid);
        cell.initialised = true;
        visit(cell, i * cell_bytes, access, m);
    }
}

void check_shared(const char* name, std::vector<Cell>& cells, const char* begin, std::size_t limit, const char* p,
                  std::size_t size, Access access, const Origin& origin) {
    const std::size_t offset = static_cast<std::size_t>(p - begin);
    if (offset + size > limit) {
        report(origin, "out of bounds", "%s of byte %zu of %s, which has %zu; thread %d of block %u", verb(access),
               offset, name, limit, running_number(), launch.in_grid);
        return;
    }
    check_cells(cells.data(), 4, offset, size, launch.block, true, access, {name, origin});
}

void report_outside(const char* p, std::size_t size, Access access, const Origin& origin) {
    long nearest = 0;
    int argument = -1;
    for (const Argument& a : visible) {
        const long past = static_cast<long>(p - a.range.begin);
        const long distance = past < 0 ? past : past - static_cast<long>(a.range.bytes);
        if (argument < 0 || std::labs(distance) < std::labs(nearest)) nearest = distance, argument = a.position;
    }
    report(origin, "out of bounds", "%s of %zu bytes, %ld bytes %s array %d; thread %d of block %u", verb(access), size,
           nearest < 0 ? -nearest : nearest, nearest < 0 ? "before" : "behind the end of", argument, running_number(),
           launch.in_grid);
}

// `alignment`: what the address is a multiple of by its type; a GPU makes of an access as many as that takes.
void check(const void* address, std::size_t size, std::size_t alignment, Access access, const Origin& origin) {
    if (!(checking || counting) || !running || size == 0) return;
    const char* p = static_cast<const char*>(address);
    if (p >= running->stack && p < running->stack + stack_bytes) return;
    const char* shared = reinterpret_cast<const char*>(dynamic_shared);
    const bool in_dynamic = p >= shared && p < shared + most_shared;
    const Range known{reinterpret_cast<const char*>(&indices), sizeof(indices)};
    if (access == Access::read && (known.holds(p) || image.holds(p))) return;
    if (counting) {
        note_access(p, size, alignment, access, in_dynamic || static_shared.holds(p), origin);
        return;
    }
    if (in_dynamic) {
        check_shared("dynamic shared memory", dynamic_cells, shared, launch.dynamic_bytes, p, size, access, origin);
        return;
    }
    if (static_shared.holds(p)) {
        check_shared("static shared memory", static_cells, static_shared.begin, static_shared.bytes, p, size, access,
                     origin);
        return;
    }
    for (const Argument& a : visible) {
        if (!a.range.holds(p)) continue;
        const std::size_t offset = static_cast<std::size_t>(p - a.range.begin);
        if (offset + size > a.range.bytes) break;
        check_cells(a.buffer->cells.data(), a.buffer->cell_bytes, offset, size, launch.number, false, access,
                    {array_names[a.position], origin});
        return;
    }
    report_outside(p, size, access, origin);
}

struct Object {
    const char* inside;  // an address of its code
    Range image;
    std::size_t module = 0, tls_bytes = 0;
};

int find_object(dl_phdr_info* info, std::size_t, void* data) {
    Object& wanted = *static_cast<Object*>(data);
    const char* base = reinterpret_cast<const char*>(info->dlpi_addr);
    std::size_t end = 0, tls = 0;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) & part = info->dlpi_phdr[i];
        if (part.p_type == PT_LOAD) end = std::max<std::size_t>(end, part.p_vaddr + part.p_memsz);
        if (part.p_type == PT_TLS) tls = part.p_memsz;
    }
    const Range whole{base, end};
    if (!whole.holds(wanted.inside)) return 0;
    wanted.image = whole;
    wanted.module = info->dlpi_tls_modid;
    wanted.tls_bytes = tls;
    return 1;
}

struct TlsIndex {
    unsigned long module, offset;
};
extern "C" void* __tls_get_addr(TlsIndex*);

}  // namespace

void atomic_access(const void* address, std::size_t size, Place place) {
    Origin origin(place);
    origin.frame = __builtin_frame_address(0);
    check(address, size, size, Access::atomic, origin);
}

void start_launch(void** pointers, int count) {
    Object object{reinterpret_cast<const char*>(reinterpret_cast<void*>(launch.kernel->run)), {}, 0, 0};
    dl_iterate_phdr(find_object, &object);
    image = object.image;
    TlsIndex index{object.module, 0};
    static_shared = {object.tls_bytes ? static_cast<const char*>(__tls_get_addr(&index)) : nullptr, object.tls_bytes};
    if (!checking) return;
    dynamic_cells.resize(most_shared / 4);
    static_cells.resize(static_shared.bytes / 4 + 1);
    visible.clear();
    for (int i = 0; i < std::min(count, most_arrays); i++) {
        auto after = buffers.upper_bound(static_cast<const char*>(pointers[i]));
        if (after == buffers.begin()) continue;
        auto& [begin, buffer] = *--after;
        const Range range{begin, buffer.bytes};
        if (range.holds(static_cast<const char*>(pointers[i]))) visible.push_back({range, &buffer, i});
    }
}

void start_block() {
    std::memset(dynamic_shared, 0xff, launch.dynamic_bytes);  // NaN
    if (static_shared.bytes) std::memset(const_cast<char*>(static_shared.begin), 0xff, static_shared.bytes);
}

}  // namespace emulator

using namespace emulator;

extern "C" {

void emulator_check(int on) { checking = on != 0; }

void emulator_add_buffer(const char* begin, std::size_t bytes, std::size_t cell_bytes, int initialised) {
    Buffer& buffer = buffers[begin];
    buffer.bytes = bytes;
    buffer.cell_bytes = cell_bytes;
    buffer.cells.assign((bytes + cell_bytes - 1) / cell_bytes, Cell());
    for (Cell& cell : buffer.cells) cell.initialised = initialised != 0;
}

void emulator_remove_buffer(const char* begin) { buffers.erase(begin); }

// The host wrote all of it.
void emulator_initialise(const char* begin) {
    const auto found = buffers.find(begin);
    if (found == buffers.end()) return;
    for (Cell& cell : found->second.cells) cell.initialised = true;
}

// ---- what -fsanitize=thread calls ----
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}

#define NST_CALLER {__builtin_return_address(0), __builtin_frame_address(0)}
#define NST_WATCH(name, size, alignment, access) \
    void name(void* p) { check(p, size, alignment, access, NST_CALLER); }
#define NST_WATCH_SIZE(size)                                                             \
    NST_WATCH(__tsan_read##size, size, size, Access::read)                               \
    NST_WATCH(__tsan_write##size, size, size, Access::write)                             \
    NST_WATCH(__tsan_unaligned_read##size, size, std::min(word, size / 2), Access::read) \
    NST_WATCH(__tsan_unaligned_write##size, size, std::min(word, size / 2), Access::write)
NST_WATCH(__tsan_read1, 1, 1, Access::read)
NST_WATCH(__tsan_write1, 1, 1, Access::write)
NST_WATCH_SIZE(2)
NST_WATCH_SIZE(4)
NST_WATCH_SIZE(8)
NST_WATCH_SIZE(16)
// Structures that are not of one of these sizes.
void __tsan_read_range(void* p, std::size_t n) { check(p, n, word, Access::read, NST_CALLER); }
void __tsan_write_range(void* p, std::size_t n) { check(p, n, word, Access::write, NST_CALLER); }
void* __tsan_memcpy(void* to, const void* from, std::size_t n) {
    check(from, n, word, Access::read, NST_CALLER);
    check(to, n, word, Access::write, NST_CALLER);
    return std::memcpy(to, from, n);
}
void* __tsan_memset(void* to, int value, std::size_t n) {
    check(to, n, word, Access::write, NST_CALLER);
    return std::memset(to, value, n);
}

// ---- what the other sanitizers call ----
struct SanitizerPlace {
    const char* file;
    std::uint32_t line, column;
};
static void broken(const SanitizerPlace* place, const char* rule) {
    report(Place{place->file, static_cast<int>(place->line)}, rule, "thread %d of block %u",
           running ? running_number() : -1, launch.in_grid);
}
#define NST_RULE(handler, rule)                                                   \
    void __ubsan_handle_##handler(SanitizerPlace* place) { broken(place, rule); } \
    void __ubsan_handle_##handler##_abort(SanitizerPlace* place) { broken(place, rule); }
NST_RULE(out_of_bounds, "index out of bounds")
NST_RULE(shift_out_of_bounds, "shift out of bounds")
NST_RULE(add_overflow, "integer overflow")
NST_RULE(sub_overflow, "integer overflow")
NST_RULE(mul_overflow, "integer overflow")
NST_RULE(negate_overflow, "integer overflow")
NST_RULE(float_cast_overflow, "float out of range")
// The processor would fault next, so the thread ends here.
#define NST_FATAL_RULE(handler, rule)                      \
    void __ubsan_handle_##handler(SanitizerPlace* place) { \
        broken(place, rule);                               \
        end_thread();                                      \
    }
NST_FATAL_RULE(divrem_overflow, "division by zero")
NST_FATAL_RULE(type_mismatch_v1, "misaligned")
}
