// Aligned working memory for a kernel. Allocate outside parallel loops: std::bad_alloc must not leave a thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

namespace nst::NST_ISA_NS {

template <class T>
class Scratch {
  public:
    explicit Scratch(std::int64_t count)
        : data_(static_cast<T*>(::operator new(static_cast<std::size_t>(count) * sizeof(T), alignment))) {}
    ~Scratch() { ::operator delete(data_, alignment); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    T* get() const { return data_; }

  private:
    static constexpr std::align_val_t alignment{64};
    T* data_;
};

}  // namespace nst::NST_ISA_NS
