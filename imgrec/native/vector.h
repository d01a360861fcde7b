// Vectors of floats as wide as the processor's registers.

#ifndef IMGREC_NATIVE_VECTOR_H_
#define IMGREC_NATIVE_VECTOR_H_

#include <cstring>

namespace {

// Lanes of a register, and how many registers a block of sums may take.
#if defined(__AVX512F__)
constexpr int kLanes = 16, kAccumulators = 24;
#elif defined(__AVX__)
constexpr int kLanes = 8, kAccumulators = 12;
#else
constexpr int kLanes = 4, kAccumulators = 24;
#endif

using Vector = float __attribute__((vector_size(kLanes * sizeof(float))));

inline Vector Load(const float* at) {
  Vector v;
  std::memcpy(&v, at, sizeof v);
  return v;
}

inline void Store(float* at, Vector v) { std::memcpy(at, &v, sizeof v); }

}  // namespace

#endif  // IMGREC_NATIVE_VECTOR_H_
