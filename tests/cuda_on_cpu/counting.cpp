// The lint of the counting build: how many sectors of global memory and passes over shared memory the accesses of a
// warp take.
//
// Lanes run one after the other, so each leaves a trace of the blocks of code that it went through and the accesses it
// made. When lanes come together, in a barrier or a collective, their traces are replayed side by side, as a warp would
// run them: of the lanes' places the deepest call goes first, and in it the lowest address; lanes at the same place go
// together. The build is not optimised, so that addresses rise with the text and a lane that has skipped something
// waits behind it for the others.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <tuple>

#include "machine.h"

namespace emulator {

bool counting = false;

namespace {

constexpr std::uintptr_t sector = 32;  // bytes of global memory that move together
constexpr std::uintptr_t word = 4, banks = 32;

// A place that a lane came by, and what it accessed there: no bytes where it is only a place.
struct Event {
    const char* code;
    const char* address;
    std::uint32_t depth;  // bytes of the stack in use
    std::uint8_t bytes;
    Access access;
    bool shared;
    std::uint8_t line;  // in `lines`, of what has no instruction of its own; 0 of the others
    bool at(const Event& other) const { return code == other.code && depth == other.depth && line == other.line; }
    bool goes_before(const Event& other) const {
        if (depth != other.depth) return depth > other.depth;
        return code != other.code ? code < other.code : line < other.line;
    }
};
static_assert(sizeof(Event) == 24, "there are millions of them");

struct Lane {
    int number;
    const char* address;
};

using Key = std::tuple<const char*, int, const char*, Access, bool, unsigned>;
struct Count {
    std::uint64_t accesses = 0, taken = 0, least = 0;
};

std::vector<Event> traces[most_threads];
std::vector<Place> lines;  // of atomics
std::map<Key, Count> counts;
std::string listing;

template <class T>
std::size_t distinct(std::vector<T>& values) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    return values.size();
}

void add_sectors(const std::vector<Lane>& lanes, unsigned bytes, Count& count) {
    std::vector<std::uintptr_t> sectors, addresses;
    for (const Lane& lane : lanes) {
        const auto begin = reinterpret_cast<std::uintptr_t>(lane.address);
        addresses.push_back(begin);
        for (std::uintptr_t s = begin / sector; s <= (begin + bytes - 1) / sector; s++) sectors.push_back(s);
    }
    count.taken += distinct(sectors);
    count.least += (distinct(addresses) * bytes + sector - 1) / sector;
}

// Lanes that are served together: all, or as many as ask for 128 bytes.
void add_passes(const std::vector<Lane>& lanes, unsigned bytes, Count& count) {
    const int together = bytes <= word ? warp_lanes : static_cast<int>(banks * word / bytes);
    for (int first = 0; first < warp_lanes; first += together) {
        std::vector<std::uintptr_t> words;
        for (const Lane& lane : lanes) {
            if (lane.number < first || lane.number >= first + together) continue;
            const auto begin = reinterpret_cast<std::uintptr_t>(lane.address);
            for (std::uintptr_t w = begin / word; w <= (begin + bytes - 1) / word; w++) words.push_back(w);
        }
        if (words.empty()) continue;
        distinct(words);  // lanes that ask for the same word are served at once
        std::uint64_t of_bank[banks] = {};
        for (std::uintptr_t w : words) of_bank[w % banks]++;
        count.taken += *std::max_element(of_bank, of_bank + banks);
        count.least++;
    }
}

void add(const Event& event, const std::vector<Lane>& lanes) {
    const Place place = event.line ? lines[event.line - 1] : Place{};
    Count& count = counts[{place.file, place.line, event.code, event.access, event.shared, event.bytes}];
    count.accesses++;
    if (event.shared) add_passes(lanes, event.bytes, count);
    else add_sectors(lanes, event.bytes, count);
}

Event here(const void* instruction, const void* frame) {
    const std::ptrdiff_t depth = running->stack + stack_bytes - static_cast<const char*>(frame);
    return {static_cast<const char*>(instruction), nullptr, static_cast<std::uint32_t>(depth), 0, {}, false, 0};
}

// Its number, from 1 on.
std::uint8_t number_of(Place place) {
    std::size_t i = 0;
    while (i < lines.size() && (lines[i].line != place.line || std::strcmp(lines[i].file, place.file) != 0)) i++;
    if (i == lines.size()) lines.push_back(place);
    return static_cast<std::uint8_t>(i + 1);
}

}  // namespace

void note_access(const char* address, std::size_t size, std::size_t alignment, Access access, bool shared,
                 const Origin& origin) {
    const std::size_t most = std::min(alignment, std::size_t{16});
    for (std::size_t done = 0; done < size; done += most) {
        Event event = here(origin.instruction, origin.frame);
        event.address = address + done;
        event.bytes = static_cast<std::uint8_t>(std::min(most, size - done));
        event.access = access;
        event.shared = shared;
        event.line = origin.place.file ? number_of(origin.place) : 0;
        traces[running_number()].push_back(event);
    }
}

void come_together(int warp, unsigned mask) {
    if (!counting) return;
    struct Replay {
        int number;
        const Event *now, *end;
    };
    std::vector<Replay> replays;
    const auto trace_of = [&](int lane) -> std::vector<Event>& { return traces[warp * warp_lanes + lane]; };
    for (int lane = 0; lane < warp_lanes; lane++) {
        const std::vector<Event>& trace = trace_of(lane);
        if (mask >> lane & 1 && !trace.empty()) replays.push_back({lane, trace.data(), trace.data() + trace.size()});
    }
    std::vector<Lane> together;
    for (;;) {
        const Event* next = nullptr;
        for (const Replay& r : replays)
            if (r.now != r.end && (!next || r.now->goes_before(*next))) next = r.now;
        if (!next) break;
        together.clear();
        for (Replay& r : replays)
            if (r.now != r.end && r.now->at(*next)) together.push_back({r.number, r.now++->address});
        if (next->bytes) add(*next, together);
    }
    for (int lane = 0; lane < warp_lanes; lane++)
        if (mask >> lane & 1) trace_of(lane).clear();
}

void start_counting() {
    counts.clear();
    lines.clear();
}

}  // namespace emulator

using namespace emulator;

extern "C" {

void emulator_count(int on) { counting = on != 0; }

// Of the last launch, a line each: place, access, memory, bytes a lane, accesses of a warp, what they took and the
// least that they could have.
const char* emulator_counts() {
    constexpr const char* verbs[] = {"load", "store", "atomic"};
    listing.clear();
    for (const auto& [key, count] : counts) {
        const auto& [file, line, code, access, shared, bytes] = key;
        char text[600];
        char place[400];
        if (file) std::snprintf(place, sizeof(place), "%s:%d", file, line);
        else std::snprintf(place, sizeof(place), "@%p", static_cast<const void*>(code));
        std::snprintf(text, sizeof(text), "%s\t%s\t%s\t%u\t%llu\t%llu\t%llu\n", place, verbs[static_cast<int>(access)],
                      shared ? "shared" : "global", bytes, static_cast<unsigned long long>(count.accesses),
                      static_cast<unsigned long long>(count.taken), static_cast<unsigned long long>(count.least));
        listing += text;
    }
    return listing.c_str();
}

// What -fsanitize-coverage=trace-pc calls at the start of each block of code.
void __sanitizer_cov_trace_pc() {
    if (counting && running)
        traces[running_number()].push_back(here(__builtin_return_address(0), __builtin_frame_address(0)));
}
}
