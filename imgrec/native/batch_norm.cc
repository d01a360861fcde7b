// Batch normalisation in training and its gradient, of maps in float32 or bfloat16.
//
// The maps are rows of channels. Each of the two custom calls goes through them twice: once for
// the sums of each channel, once for what comes out. All is computed in float32. Rows are summed
// in parts whose number depends on the shapes alone, and the parts in order.

#include <cmath>

#include "parallel.h"
#include "vector.h"

namespace {

// ---- vectors of both types ----

using Bits = uint32_t __attribute__((vector_size(kLanes * 4)));
using Halves = Half __attribute__((vector_size(kLanes * 2)));

inline Vector Load(const Half* at) {
  Halves v;
  std::memcpy(&v, at, sizeof v);
  return (Vector)(__builtin_convertvector(v, Bits) << 16);
}

// Rounded to the nearest, to even in the middle; what is no number stays so.
inline void Store(Half* at, Vector v) {
  const Bits bits = (Bits)v;
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  const Halves found =
      __builtin_convertvector(v == v ? rounded : (bits >> 16) | 0x40, Halves);
  std::memcpy(at, &found, sizeof found);
}

// N vectors of channels; or, of the last, as many as there are.
template <int N, bool kWhole>
struct Columns {
  static constexpr int vectors = N;
  int64_t first, count;

  template <typename T>
  Vector Get(const T* at, int n) const {
    if constexpr (kWhole) return Load(at + n * kLanes);
    T some[kLanes] = {};
    std::memcpy(some, at, count * sizeof(T));
    return Load(some);
  }
  template <typename T>
  void Put(T* at, int n, Vector v) const {
    if constexpr (kWhole) return Store(at + n * kLanes, v);
    T some[kLanes];
    Store(some, v);
    std::memcpy(at, some, count * sizeof(T));
  }
};

// Calls work(columns) for all channels.
template <typename Work>
void ForColumns(int64_t channels, Work work) {
  int64_t c = 0;
  for (; channels - c >= 4 * kLanes; c += 4 * kLanes) work(Columns<4, true>{c, 0});
  for (; channels - c >= 2 * kLanes; c += 2 * kLanes) work(Columns<2, true>{c, 0});
  for (; channels - c >= kLanes; c += kLanes) work(Columns<1, true>{c, 0});
  if (c < channels) work(Columns<1, false>{c, channels - c});
}

// ---- rows in parts ----

struct Rows {
  int64_t count, channels;
  int64_t parts() const { return std::min<int64_t>(64, (count + 511) / 512); }
  int64_t begin(int64_t part) const { return count * part / parts(); }
};

Rows RowsOf(ffi::Span<const int64_t> dimensions) {
  Rows rows{1, dimensions.back()};
  for (size_t i = 0; i + 1 < dimensions.size(); ++i) rows.count *= dimensions[i];
  return rows;
}

// Numbers of each channel, as many as whole vectors have.
std::vector<float> Padded(const float* numbers, int64_t channels) {
  std::vector<float> padded(RoundUp(channels, kLanes));
  std::copy_n(numbers, channels, padded.data());
  return padded;
}

// The two sums of each channel over the rows; terms(columns, row, n) gives what is added.
template <typename Terms>
std::array<std::vector<float>, 2> Sums(ffi::ThreadPool pool, Rows rows, Terms terms) {
  const int64_t wide = RoundUp(rows.channels, kLanes);
  std::vector<float> partial(rows.parts() * 2 * wide);
  float* const sums = partial.data();
  InParallel(pool, rows.parts(), [=, &terms](int64_t part) {
    ForColumns(rows.channels, [&](auto columns) {
      constexpr int N = decltype(columns)::vectors;
      Vector first[N] = {}, second[N] = {};
      for (int64_t row = rows.begin(part); row < rows.begin(part + 1); ++row) {
#pragma GCC unroll 4
        for (int n = 0; n < N; ++n) {
          const auto [a, b] = terms(columns, row, n);
          first[n] += a, second[n] += b;
        }
      }
      float* to = sums + part * 2 * wide + columns.first;
      for (int n = 0; n < N; ++n) {
        Store(to + n * kLanes, first[n]);
        Store(to + wide + n * kLanes, second[n]);
      }
    });
  });
  std::array<std::vector<float>, 2> total;
  for (int64_t s = 0; s < 2; ++s) {
    total[s].resize(wide);
    for (int64_t part = 0; part < rows.parts(); ++part)
      for (int64_t c = 0; c < wide; ++c) total[s][c] += sums[(part * 2 + s) * wide + c];
  }
  return total;
}

// Writes value(columns, row, n) everywhere.
template <typename T, typename Value>
void Map(ffi::ThreadPool pool, Rows rows, T* out, Value value) {
  InParallel(pool, rows.parts(), [=, &value](int64_t part) {
    ForColumns(rows.channels, [&](auto columns) {
      for (int64_t row = rows.begin(part); row < rows.begin(part + 1); ++row) {
        T* to = out + row * rows.channels + columns.first;
#pragma GCC unroll 4
        for (int n = 0; n < decltype(columns)::vectors; ++n)
          columns.Put(to, n, value(columns, row, n));
      }
    });
  });
}

// ---- the two custom calls ----

using Floats = ffi::Buffer<ffi::F32>;
using FloatsOut = ffi::ResultBuffer<ffi::F32>;
template <ffi::DataType kType>
using Maps = ffi::Buffer<kType>;
template <ffi::DataType kType>
using MapsOut = ffi::ResultBuffer<kType>;

// y = (x - mean) / sqrt(variance + epsilon) * scale + bias
template <ffi::DataType kType>
ffi::Error Forward(ffi::ThreadPool pool, Maps<kType> x, Floats scale, Floats bias,
                   MapsOut<kType> y, FloatsOut mean, FloatsOut variance, float epsilon) {
  const Rows rows = RowsOf(x.dimensions());
  const auto* maps = x.typed_data();
  const int64_t channels = rows.channels, wide = RoundUp(channels, kLanes);
  // Sums are taken of what differs from the first row, as squares of a large mean lose digits.
  std::vector<float> shift(wide), factor(wide), center(wide);
  if (rows.count)
    ForColumns(channels, [&](auto columns) {
      for (int n = 0; n < decltype(columns)::vectors; ++n)
        Store(&shift[columns.first + n * kLanes], columns.Get(maps + columns.first, n));
    });
  const float* from = shift.data();
  const auto sums = Sums(pool, rows, [=](auto columns, int64_t row, int n) {
    const int64_t c = columns.first;
    const Vector v = columns.Get(maps + row * channels + c, n) - Load(from + c + n * kLanes);
    return std::pair(v, v * v);
  });
  for (int64_t c = 0; c < channels; ++c) {
    const float offset = sums[0][c] / rows.count;
    const float spread = std::max(sums[1][c] / rows.count - offset * offset, 0.0f);
    mean->typed_data()[c] = center[c] = shift[c] + offset;
    variance->typed_data()[c] = spread;
    factor[c] = scale.typed_data()[c] / std::sqrt(spread + epsilon);
  }
  const std::vector<float> added = Padded(bias.typed_data(), channels);
  const float *centers = center.data(), *factors = factor.data(), *biases = added.data();
  Map(pool, rows, y->typed_data(), [=](auto columns, int64_t row, int n) {
    const int64_t c = columns.first, at = c + n * kLanes;
    const Vector v = columns.Get(maps + row * channels + c, n);
    return (v - Load(centers + at)) * Load(factors + at) + Load(biases + at);
  });
  return ffi::Error::Success();
}

// From the gradients of y, mean and variance those of x, scale and bias.
template <ffi::DataType kType>
ffi::Error Gradient(ffi::ThreadPool pool, Maps<kType> dy, Floats dmean, Floats dvariance,
                    Maps<kType> x, Floats scale, Floats mean, Floats variance, MapsOut<kType> dx,
                    FloatsOut dscale, FloatsOut dbias, float epsilon) {
  const Rows rows = RowsOf(x.dimensions());
  const auto *maps = x.typed_data(), *gradient = dy.typed_data();
  const int64_t channels = rows.channels, wide = RoundUp(channels, kLanes);
  const std::vector<float> center = Padded(mean.typed_data(), channels);
  const float* centers = center.data();
  const auto sums = Sums(pool, rows, [=](auto columns, int64_t row, int n) {
    const int64_t c = columns.first;
    const Vector g = columns.Get(gradient + row * channels + c, n);
    const Vector v = columns.Get(maps + row * channels + c, n) - Load(centers + c + n * kLanes);
    return std::pair(g, g * v);
  });
  // dx = of_gradient * dy + of_maps * (x - mean) + constant
  std::vector<float> of_gradient(wide), of_maps(wide), constant(wide);
  for (int64_t c = 0; c < channels; ++c) {
    const float inverse = 1 / std::sqrt(variance.typed_data()[c] + epsilon);
    const float factor = scale.typed_data()[c] * inverse, count = rows.count;
    dscale->typed_data()[c] = sums[1][c] * inverse;
    dbias->typed_data()[c] = sums[0][c];
    of_gradient[c] = factor;
    of_maps[c] = (2 * dvariance.typed_data()[c] - factor * inverse * inverse * sums[1][c]) / count;
    constant[c] = (dmean.typed_data()[c] - factor * sums[0][c]) / count;
  }
  const float *a = of_gradient.data(), *b = of_maps.data(), *constants = constant.data();
  Map(pool, rows, dx->typed_data(), [=](auto columns, int64_t row, int n) {
    const int64_t c = columns.first, at = c + n * kLanes;
    const Vector g = columns.Get(gradient + row * channels + c, n);
    const Vector v = columns.Get(maps + row * channels + c, n) - Load(centers + at);
    return g * Load(a + at) + (v * Load(b + at) + Load(constants + at));
  });
  return ffi::Error::Success();
}

#define IMGREC_BATCH_NORM(end, type)                                                     \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(imgrec_batch_norm_forward##end, Forward<type>,           \
                                ffi::Ffi::Bind()                                         \
                                    .Ctx<ffi::ThreadPool>()                              \
                                    .Arg<Maps<type>>()                                   \
                                    .Arg<Floats>()                                       \
                                    .Arg<Floats>()                                       \
                                    .Ret<Maps<type>>()                                   \
                                    .Ret<Floats>()                                       \
                                    .Ret<Floats>()                                       \
                                    .Attr<float>("epsilon"));                            \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(imgrec_batch_norm_gradient##end, Gradient<type>,         \
                                ffi::Ffi::Bind()                                         \
                                    .Ctx<ffi::ThreadPool>()                              \
                                    .Arg<Maps<type>>()                                   \
                                    .Arg<Floats>()                                       \
                                    .Arg<Floats>()                                       \
                                    .Arg<Maps<type>>()                                   \
                                    .Arg<Floats>()                                       \
                                    .Arg<Floats>()                                       \
                                    .Arg<Floats>()                                       \
                                    .Ret<Maps<type>>()                                   \
                                    .Ret<Floats>()                                       \
                                    .Ret<Floats>()                                       \
                                    .Attr<float>("epsilon"))

}  // namespace

extern "C" {
IMGREC_BATCH_NORM(, ffi::F32);
IMGREC_BATCH_NORM(_bfloat16, ffi::BF16);
}
