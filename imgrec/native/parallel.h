// What all kernels share: work in parallel, and scratch memory.

#ifndef IMGREC_NATIVE_PARALLEL_H_
#define IMGREC_NATIVE_PARALLEL_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "xla/ffi/api/ffi.h"

namespace ffi = xla::ffi;

namespace {

using Half = uint16_t;  // the bits of a bfloat16

inline int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Calls work(i) for i < n on the pool's threads and this one. Nothing waits for a thread that has
// not begun, so a full pool cannot block it.
template <typename Work>
void InParallel(ffi::ThreadPool pool, int64_t n, Work work) {
  struct Shared {
    Shared(Work w, int64_t count) : work(std::move(w)), n(count) {}
    Work work;
    int64_t n;
    std::atomic<int64_t> next{0}, done{0};
  };
  auto shared = std::make_shared<Shared>(std::move(work), n);
  auto run = [shared] {
    for (int64_t i; (i = shared->next.fetch_add(1)) < shared->n;) {
      shared->work(i);
      shared->done.fetch_add(1, std::memory_order_release);
    }
  };
  for (int64_t t = 1; t < std::min(pool.num_threads(), n); ++t) pool.Schedule(decltype(run)(run));
  run();
  while (shared->done.load(std::memory_order_acquire) < n) std::this_thread::yield();
}

constexpr int64_t kCacheLine = 64;

// Memory that begins with a cache line.
template <typename T>
class Aligned {
 public:
  explicit Aligned(int64_t size = 0) { Grow(size); }
  void Grow(int64_t size) {
    if (size <= size_) return;
    memory_ = std::make_unique<char[]>(size * sizeof(T) + kCacheLine);
    size_ = size;
  }
  T* data() const {
    const auto at = reinterpret_cast<uintptr_t>(memory_.get());
    return reinterpret_cast<T*>((at + kCacheLine - 1) / kCacheLine * kCacheLine);
  }

 private:
  std::unique_ptr<char[]> memory_;
  int64_t size_ = 0;
};

// Scratch memory of this thread, for one of several purposes at a time.
template <typename T>
T* Scratch(int which, int64_t size) {
  thread_local std::array<Aligned<T>, 2> buffers;
  buffers[which].Grow(size);
  return buffers[which].data();
}

}  // namespace

#endif  // IMGREC_NATIVE_PARALLEL_H_
