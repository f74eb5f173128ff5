#include "blocks.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define NST_PLAIN_BLOCKS  // so that the sanitizer sees where each array ends
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NST_PLAIN_BLOCKS
#endif
#endif

namespace nst {
namespace {

using Address = std::uintptr_t;

constexpr std::size_t rounded(std::size_t bytes, std::size_t step) { return (bytes + step - 1) / step * step; }

// Fresh memory at a multiple of huge_page; 0 when there is none. Sizes are multiples of huge_page.
Address map_pages(std::size_t bytes) {
    const auto map = [](std::size_t size) {
        void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANON, -1, 0);
        return p == MAP_FAILED ? Address{0} : reinterpret_cast<Address>(p);
    };
    Address at = map(bytes);
    if (at % huge_page != 0) {
        munmap(reinterpret_cast<void*>(at), bytes);
        const Address wide = map(bytes + huge_page);
        if (!wide) return 0;
        at = rounded(wide, huge_page);
        if (at > wide) munmap(reinterpret_cast<void*>(wide), at - wide);
        if (wide + huge_page > at) munmap(reinterpret_cast<void*>(at + bytes), wide + huge_page - at);
    }
#ifdef MADV_HUGEPAGE
    if (at) madvise(reinterpret_cast<void*>(at), bytes, MADV_HUGEPAGE);  // a wish; without it pages are small
#endif
    return at;
}

class Blocks {
  public:
    Address take(std::size_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        auto best = smallest_holding(bytes);
        if (best == free_.end()) best = grow(bytes);
        if (best == free_.end()) return 0;
        const Address at = best->first;
        const Range range = best->second;
        free_.erase(best);
        if (range.bytes > bytes) free_[at + bytes] = {range.bytes - bytes, range.last_used};
        kept_ -= bytes;
        used_ += bytes;
        most_used_ = std::max(most_used_, used_);
        return at;
    }

    void give(Address at, std::size_t bytes) {
        const std::lock_guard<std::mutex> lock(mutex_);
        used_ -= bytes;
        add_free(at, bytes);
        if (scopes_ == 0) shrink_to(kept_limit);
    }

    BlockCount count() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return {used_, kept_};
    }

    void keep(bool begin) {
        const std::lock_guard<std::mutex> lock(mutex_);
        if (begin && scopes_ == 0) most_used_ = used_;
        scopes_ += begin ? 1 : -1;
        if (scopes_ == 0) shrink_to(kept_limit);
    }

    void give_back() {
        const std::lock_guard<std::mutex> lock(mutex_);
        shrink_to(0);
        most_used_ = used_;
    }

    std::mutex& mutex() { return mutex_; }

  private:
    struct Range {
        std::size_t bytes;
        std::uint64_t last_used;
    };
    using Ranges = std::map<Address, Range>;

    Ranges::iterator smallest_holding(std::size_t bytes) {
        auto best = free_.end();
        for (auto it = free_.begin(); it != free_.end(); ++it)
            if (it->second.bytes >= bytes && (best == free_.end() || it->second.bytes < best->second.bytes)) best = it;
        return best;
    }

    // Maps a range for a block, after giving back what would make the whole too large.
    Ranges::iterator grow(std::size_t bytes) {
        const std::size_t size = rounded(bytes, huge_page), most = std::max(most_used_, used_ + size);
        const std::size_t spare = scopes_ > 0 ? most + most / 8 - used_ - size : kept_limit;
        shrink_to(spare);
        Address at = map_pages(size);
        if (!at) {  // perhaps what is kept is just what is missing
            shrink_to(0);
            at = map_pages(size);
        }
        if (!at) return free_.end();
        return add_free(at, size);
    }

    // Joins a range with its free neighbours.
    Ranges::iterator add_free(Address at, std::size_t bytes) {
        kept_ += bytes;
        auto after = free_.lower_bound(at);
        if (after != free_.end() && at + bytes == after->first) {
            bytes += after->second.bytes;
            after = free_.erase(after);
        }
        if (after != free_.begin()) {
            const auto before = std::prev(after);
            if (before->first + before->second.bytes == at) {
                before->second = {before->second.bytes + bytes, ++clock_};
                return before;
            }
        }
        return free_.emplace_hint(after, at, Range{bytes, ++clock_});
    }

    // Gives whole huge pages back, from the range that was used longest ago, until `most` bytes are kept.
    void shrink_to(std::size_t most) {
        std::uint64_t tried = 0;
        while (kept_ > most) {
            auto oldest = free_.end();
            for (auto it = free_.begin(); it != free_.end(); ++it)
                if (it->second.last_used > tried &&
                    (oldest == free_.end() || it->second.last_used < oldest->second.last_used))
                    oldest = it;
            if (oldest == free_.end()) return;
            tried = oldest->second.last_used;
            unmap(oldest, rounded(kept_ - most, huge_page));
        }
    }

    // Gives up to `bytes` of a range back, from its end.
    void unmap(Ranges::iterator range, std::size_t bytes) {
        const Address start = range->first, end = start + range->second.bytes;
        const Address last = end / huge_page * huge_page;
        const Address first = std::max(rounded(start, huge_page), last > bytes ? last - bytes : 0);
        if (first >= last || munmap(reinterpret_cast<void*>(first), last - first) != 0) return;
        const std::uint64_t last_used = range->second.last_used;
        kept_ -= last - first;
        free_.erase(range);
        if (first > start) free_[start] = {first - start, last_used};
        if (end > last) free_[last] = {end - last, last_used};
    }

    std::mutex mutex_;
    Ranges free_;
    std::size_t used_ = 0, kept_ = 0, most_used_ = 0;
    std::uint64_t clock_ = 0;
    int scopes_ = 0;
};

// Never destroyed: arrays may outlive the module.
Blocks& blocks() {
    static Blocks& only = *new Blocks;
    return only;
}

// A child inherits the blocks, and must not inherit a lock that another thread held.
const int registered = pthread_atfork([] { blocks().mutex().lock(); }, [] { blocks().mutex().unlock(); },
                                      [] { blocks().mutex().unlock(); });

#ifdef NST_PLAIN_BLOCKS
constexpr std::size_t pooled_from = std::numeric_limits<std::size_t>::max();
#else
constexpr std::size_t pooled_from = block_step;
#endif

constexpr std::size_t most_bytes = std::numeric_limits<std::size_t>::max() / 4;

}  // namespace

void* take_block(std::size_t bytes) {
    if (bytes < pooled_from) return ::operator new(bytes, std::align_val_t{block_alignment});
    const Address at = bytes > most_bytes ? 0 : blocks().take(rounded(bytes, block_step));
    if (!at) throw std::bad_alloc();
    return reinterpret_cast<void*>(at);
}

void give_block(void* p, std::size_t bytes) noexcept {
    if (bytes < pooled_from) return ::operator delete(p, std::align_val_t{block_alignment});
    blocks().give(reinterpret_cast<Address>(p), rounded(bytes, block_step));
}

BlockCount count_blocks() { return blocks().count(); }
void keep_blocks(bool begin) { blocks().keep(begin); }
void give_back_blocks() { blocks().give_back(); }

}  // namespace nst
