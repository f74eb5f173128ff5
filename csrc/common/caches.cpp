#include "caches.h"

#include <unistd.h>

namespace nst {

std::int64_t l2_bytes() {
    static const std::int64_t bytes = [] {
        long found = 0;
#ifdef _SC_LEVEL2_CACHE_SIZE
        found = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
        return found > 0 ? static_cast<std::int64_t>(found) : std::int64_t{512} * 1024;
    }();
    return bytes;
}

}  // namespace nst
