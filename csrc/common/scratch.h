// Aligned working memory for a kernel. Allocate outside parallel loops: std::bad_alloc must not leave a thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "blocks.h"

namespace nst::NST_ISA_NS {

template <class T>
class Scratch {
  public:
    explicit Scratch(std::int64_t count)
        : bytes_(static_cast<std::size_t>(count) * sizeof(T)), data_(static_cast<T*>(take_block(bytes_))) {}
    ~Scratch() { give_block(data_, bytes_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    T* get() const { return data_; }

  private:
    std::size_t bytes_;
    T* data_;
};

}  // namespace nst::NST_ISA_NS
