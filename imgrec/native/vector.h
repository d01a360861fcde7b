// Vectors of floats as wide as the processor's registers, and their exponential.

#ifndef IMGREC_NATIVE_VECTOR_H_
#define IMGREC_NATIVE_VECTOR_H_

#include <cstdint>
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
using Integers = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));

inline Vector Load(const float* at) {
  Vector v;
  std::memcpy(&v, at, sizeof v);
  return v;
}

inline void Store(float* at, Vector v) { std::memcpy(at, &v, sizeof v); }

// e to the power x, within two units in the last place; below -87 it is e to the -87, of no
// weight beside 1, and x must not be above 88.
inline Vector Exp(Vector x) {
  const Vector lowest = Vector{} - 87.0f;
  x = x > lowest ? x : lowest;
  // x = n log 2 + r, where adding and taking away 1.5 * 2^23 rounds to a whole n.
  const Vector rounded = x * 1.44269504f + 12582912.0f;
  const Vector n = rounded - 12582912.0f;
  const Vector r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // log 2 in two parts
  Vector power = Vector{} + 1.0f / 5040;  // the series of exp(r), for |r| < 0.35
  power = power * r + 1.0f / 720;
  power = power * r + 1.0f / 120;
  power = power * r + 1.0f / 24;
  power = power * r + 1.0f / 6;
  power = power * r + 0.5f;
  power = power * r + 1.0f;
  power = power * r + 1.0f;
  Integers bits, whole;
  std::memcpy(&bits, &power, sizeof bits);
  std::memcpy(&whole, &rounded, sizeof whole);
  bits += whole << 23;  // n sits in the lowest bits of `rounded`, and what is above is shifted out
  std::memcpy(&power, &bits, sizeof power);
  return power;
}

}  // namespace

#endif  // IMGREC_NATIVE_VECTOR_H_
