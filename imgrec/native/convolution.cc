// Convolutions of float32 maps on CPUs and their two gradients, as XLA custom calls.
//
// Maps are [batch, height, width, channels], kernels [rows, columns, channels, features]. The
// columns of a kernel and the channels lie side by side in memory, both in the kernel and under
// it in the map; so a convolution is, for each row of the kernel, a product of vectors that are
// contiguous. One image at a time is copied into a buffer with its margins, which stays in the
// cache, and a block of output pixels times features stays in registers while the sum runs.
//
// What is summed in which order depends on the shapes alone, not on the number of threads, so
// that results are the same to the bit on any number of cores.

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

#if defined(__AVX512F__)
constexpr int kLanes = 16, kAccumulators = 24;
#elif defined(__AVX__)
constexpr int kLanes = 8, kAccumulators = 12;
#else
constexpr int kLanes = 4, kAccumulators = 24;
#endif

// Floats that stay in the cache nearest to a core beside what else it needs.
constexpr int64_t kNearest = 6144;

using Vector = float __attribute__((vector_size(kLanes * sizeof(float))));

inline Vector Load(const float* at) {
  Vector v;
  std::memcpy(&v, at, sizeof v);
  return v;
}

inline void Store(float* at, Vector v) { std::memcpy(at, &v, sizeof v); }

int64_t RoundUp(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

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

// Scratch memory of this thread.
float* Scratch(int which, int64_t floats) {
  thread_local std::array<std::vector<float>, 2> buffers;
  auto& buffer = buffers[which];
  if (static_cast<int64_t>(buffer.size()) < floats) buffer.resize(floats);
  return buffer.data();
}

struct Image {
  int64_t height, width, channels;
};

// One image inside zeros: `top` rows above it and `left` columns before it, cut or filled to
// `padded`'s size; `padded.channels` may exceed the image's, the rest being zeros.
void Pad(const float* image, Image size, int64_t top, int64_t left, Image padded, float* out) {
  const int64_t c = size.channels, cp = padded.channels, row = padded.width * cp;
  std::memset(out, 0, padded.height * row * sizeof(float));
  const int64_t rows = std::min(size.height, padded.height - top);
  const int64_t columns = std::min(size.width, padded.width - left);
  for (int64_t y = std::max<int64_t>(0, -top); y < rows; ++y) {
    const int64_t x = std::max<int64_t>(0, -left);
    const float* from = image + (y * size.width + x) * c;
    float* to = out + (y + top) * row + (x + left) * cp;
    if (c == cp) {
      std::memcpy(to, from, (columns - x) * c * sizeof(float));
      continue;
    }
    for (int64_t i = x; i < columns; ++i, from += c, to += cp) std::memcpy(to, from, c * sizeof(float));
  }
}

// ---- a block of output: P pixels by N vectors of features ----

// source: under the first pixel; `pixel` and `row` are the distances to the next pixel and to the
// next row of the kernel, of which `rows` are summed, each `depth` numbers long. With `more` the
// sums go on from what `out` holds.
template <int P, int N>
void Block(const float* source, int64_t pixel, int64_t row, int64_t rows, int64_t depth,
           const float* weights, bool more, float* out, int64_t out_pixel, int64_t features) {
  Vector sum[P][N] = {};
  if (more) {
#pragma GCC unroll 24
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        const float* at = out + p * out_pixel + n * kLanes;
        const int64_t left = features - n * kLanes;
        if (left >= kLanes) {
          sum[p][n] = Load(at);
        } else if (left > 0) {
          std::memcpy(&sum[p][n], at, left * sizeof(float));
        }
      }
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const float* under = source + r * row;
    for (int64_t k = 0; k < depth; ++k, weights += N * kLanes) {
      Vector w[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) w[n] = Load(weights + n * kLanes);
#pragma GCC unroll 24
      for (int p = 0; p < P; ++p) {
        const float x = under[p * pixel + k];
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) sum[p][n] += x * w[n];
      }
    }
  }
#pragma GCC unroll 24
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) {
      float* at = out + p * out_pixel + n * kLanes;
      const int64_t left = features - n * kLanes;
      if (left >= kLanes) {
        Store(at, sum[p][n]);
      } else if (left > 0) {
        std::memcpy(at, &sum[p][n], left * sizeof(float));
      }
    }
  }
}

using BlockFn = decltype(&Block<1, 1>);

template <int N, size_t... I>
constexpr std::array<BlockFn, sizeof...(I)> Blocks(std::index_sequence<I...>) {
  return {&Block<I + 1, N>...};
}

constexpr auto kNarrow = Blocks<1>(std::make_index_sequence<kAccumulators>());
constexpr auto kWide = Blocks<2>(std::make_index_sequence<kAccumulators / 2>());

// ---- a correlation of a padded image with packed weights ----

struct Correlation {
  int64_t rows, depth;              // of the kernel; depth is columns times channels
  int64_t top, left;                // where the first output pixel begins in the padded image
  int64_t step_y, step_x;           // from one output pixel to the next, in the padded image
  int64_t height, width;            // of the output
  int64_t out_offset, out_row, out_pixel;  // where it goes, in floats
  std::vector<float> weights;       // [features / block][rows * depth][block]
};

// Vectors that the block of features from f on is wide.
int VectorsAt(int64_t f, int64_t features) { return features - f > kLanes ? 2 : 1; }

// weights(row, k, f) in the order that Block reads.
template <typename Weights>
std::vector<float> Pack(int64_t rows, int64_t depth, int64_t features, Weights weights) {
  std::vector<float> packed(rows * depth * RoundUp(features, kLanes));
  float* to = packed.data();
  for (int64_t f = 0; f < features;) {
    const int64_t width = VectorsAt(f, features) * kLanes;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t k = 0; k < depth; ++k, to += width)
        for (int64_t i = 0; i < std::min(width, features - f); ++i) to[i] = weights(r, k, f + i);
    f += width;
  }
  return packed;
}

void Correlate(const Correlation& c, const float* padded, Image size, int64_t features, float* out) {
  const int64_t row = size.width * size.channels;
  const float* weights = c.weights.data();
  for (int64_t f = 0; f < features;) {
    const int vectors = VectorsAt(f, features);
    const int64_t wide = vectors * kLanes, most = kAccumulators / vectors;
    const int64_t blocks = (c.width + most - 1) / most;
    // Weights that do not fit the nearest cache are gone through in parts, each over all pixels.
    const int64_t at_once = kNearest / wide;
    const bool whole = c.rows * c.depth <= at_once;
    const int64_t chunks = whole ? 1 : (c.depth + at_once - 1) / at_once;
    for (int64_t part = 0; part < (whole ? 1 : c.rows * chunks); ++part) {
      const int64_t r = part / chunks, chunk = part % chunks;
      const int64_t k = c.depth * chunk / chunks, depth = c.depth * (chunk + 1) / chunks - k;
      for (int64_t y = 0; y < c.height; ++y) {
        const float* under =
            padded + (c.top + y * c.step_y + r) * row + c.left * size.channels + k;
        float* to = out + c.out_offset + y * c.out_row + f;
        for (int64_t b = 0; b < blocks; ++b) {
          const int64_t begin = c.width * b / blocks, pixels = c.width * (b + 1) / blocks - begin;
          const auto block = vectors == 2 ? kWide[pixels - 1] : kNarrow[pixels - 1];
          block(under + begin * c.step_x * size.channels, c.step_x * size.channels, row,
                whole ? c.rows : 1, depth, weights + (r * c.depth + k) * wide, part > 0,
                to + begin * c.out_pixel, c.out_pixel, features - f);
        }
      }
    }
    weights += c.rows * c.depth * wide;
    f += wide;
  }
}

// ---- a block of the kernel's gradient: K numbers of a row by N vectors of features ----

struct Walk {  // over the pixels of one image's output
  int64_t height, width;
  int64_t x_row, x_pixel, g_row, g_pixel;
};

template <int K, int N>
void Outer(const float* x, const float* g, Walk walk, float* sums, int64_t stride) {
  Vector sum[K][N];
#pragma GCC unroll 24
  for (int k = 0; k < K; ++k)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) sum[k][n] = Load(sums + k * stride + n * kLanes);
  for (int64_t y = 0; y < walk.height; ++y) {
    const float *xs = x + y * walk.x_row, *gs = g + y * walk.g_row;
    for (int64_t i = 0; i < walk.width; ++i, xs += walk.x_pixel, gs += walk.g_pixel) {
      Vector v[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) v[n] = Load(gs + n * kLanes);
#pragma GCC unroll 24
      for (int k = 0; k < K; ++k)
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) sum[k][n] += xs[k] * v[n];
    }
  }
#pragma GCC unroll 24
  for (int k = 0; k < K; ++k)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) Store(sums + k * stride + n * kLanes, sum[k][n]);
}

using OuterFn = decltype(&Outer<1, 1>);

template <int N, size_t... I>
constexpr std::array<OuterFn, sizeof...(I)> Outers(std::index_sequence<I...>) {
  return {&Outer<I + 1, N>...};
}

constexpr auto kOuterNarrow = Outers<1>(std::make_index_sequence<kAccumulators>());
constexpr auto kOuterWide = Outers<2>(std::make_index_sequence<kAccumulators / 2>());

// ---- the three custom calls ----

using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

struct Window {
  int64_t stride_y, stride_x, top, left;
};

ffi::Error Forward(ffi::ThreadPool pool, Buffer x, Buffer w, Result y, Window window) {
  const auto xd = x.dimensions(), wd = w.dimensions(), yd = y->dimensions();
  const Image in{xd[1], xd[2], xd[3]};
  const int64_t features = wd[3];
  Correlation c;
  c.rows = wd[0], c.depth = wd[1] * wd[2], c.top = c.left = 0;
  c.step_y = window.stride_y, c.step_x = window.stride_x, c.height = yd[1], c.width = yd[2];
  c.out_offset = 0, c.out_row = yd[2] * features, c.out_pixel = features;
  const float* weights = w.typed_data();
  c.weights = Pack(c.rows, c.depth, features, [&](int64_t r, int64_t k, int64_t f) {
    return weights[(r * c.depth + k) * features + f];
  });
  const Image padded{(c.height - 1) * c.step_y + wd[0], (c.width - 1) * c.step_x + wd[1], xd[3]};
  const float* from = x.typed_data();
  float* to = y->typed_data();
  InParallel(pool, xd[0], [=, &c](int64_t i) {
    float* scratch = Scratch(0, padded.height * padded.width * padded.channels);
    Pad(from + i * in.height * in.width * in.channels, in, window.top, window.left, padded, scratch);
    Correlate(c, scratch, padded, features, to + i * c.height * c.out_row);
  });
  return ffi::Error::Success();
}

// Along one axis, for the input pixels whose position leaves `phase` when divided by the stride:
// which rows (or columns) of the kernel reach them, and from where in the output's gradient.
struct Taps {
  int64_t first, count, begin;
};

Taps TapsOf(int64_t phase, int64_t stride, int64_t padding, int64_t size) {
  const int64_t first = (phase + padding) % stride;
  const int64_t count = first < size ? (size - first + stride - 1) / stride : 0;
  return {first, count, (phase + padding - first) / stride - (count - 1)};
}

ffi::Error InputGradient(ffi::ThreadPool pool, Buffer g, Buffer w, Result dx, Window window) {
  const auto gd = g.dimensions(), wd = w.dimensions(), xd = dx->dimensions();
  const int64_t channels = xd[3], features = gd[3];
  const float* weights = w.typed_data();
  int64_t top = 0, left = 0;
  for (int64_t py = 0; py < window.stride_y; ++py)
    top = std::max(top, -TapsOf(py, window.stride_y, window.top, wd[0]).begin);
  for (int64_t px = 0; px < window.stride_x; ++px)
    left = std::max(left, -TapsOf(px, window.stride_x, window.left, wd[1]).begin);
  Image padded{1, 1, features};
  std::vector<Correlation> parts;
  for (int64_t py = 0; py < std::min(window.stride_y, xd[1]); ++py) {
    for (int64_t px = 0; px < std::min(window.stride_x, xd[2]); ++px) {
      const Taps ty = TapsOf(py, window.stride_y, window.top, wd[0]);
      const Taps tx = TapsOf(px, window.stride_x, window.left, wd[1]);
      Correlation c;
      c.rows = tx.count ? ty.count : 0, c.depth = tx.count * features;
      c.top = ty.begin + top, c.left = tx.begin + left, c.step_y = c.step_x = 1;
      c.height = (xd[1] - py + window.stride_y - 1) / window.stride_y;
      c.width = (xd[2] - px + window.stride_x - 1) / window.stride_x;
      c.out_offset = (py * xd[2] + px) * channels;
      c.out_row = window.stride_y * xd[2] * channels, c.out_pixel = window.stride_x * channels;
      c.weights = Pack(c.rows, c.depth, channels, [&](int64_t r, int64_t k, int64_t f) {
        const int64_t row = ty.first + (ty.count - 1 - r) * window.stride_y;
        const int64_t column = tx.first + (tx.count - 1 - k / features) * window.stride_x;
        return weights[((row * wd[1] + column) * channels + f) * features + k % features];
      });
      padded.height = std::max(padded.height, c.top + c.height - 1 + std::max<int64_t>(c.rows, 1));
      padded.width = std::max(padded.width, c.left + c.width - 1 + std::max<int64_t>(tx.count, 1));
      parts.push_back(std::move(c));
    }
  }
  const Image in{gd[1], gd[2], features};
  const int64_t out_size = xd[1] * xd[2] * channels;
  const float* from = g.typed_data();
  float* to = dx->typed_data();
  InParallel(pool, gd[0], [=, &parts](int64_t i) {
    float* scratch = Scratch(0, padded.height * padded.width * padded.channels);
    Pad(from + i * in.height * in.width * in.channels, in, top, left, padded, scratch);
    for (const Correlation& c : parts) Correlate(c, scratch, padded, channels, to + i * out_size);
  });
  return ffi::Error::Success();
}

ffi::Error KernelGradient(ffi::ThreadPool pool, Buffer x, Buffer g, Result dw, Window window) {
  const auto xd = x.dimensions(), gd = g.dimensions(), wd = dw->dimensions();
  const int64_t batch = xd[0], rows = wd[0], depth = wd[1] * wd[2], features = wd[3];
  const int64_t wide = RoundUp(features, kLanes);
  const Image in{xd[1], xd[2], xd[3]}, out{gd[1], gd[2], features};
  const Image padded{(gd[1] - 1) * window.stride_y + wd[0], (gd[2] - 1) * window.stride_x + wd[1],
                     xd[3]};
  const Image even{gd[1], gd[2], wide};
  const int64_t x_size = padded.height * padded.width * padded.channels;
  const int64_t g_size = even.height * even.width * wide;
  // Parts of the batch are summed apart and then in order. Their number is of the shapes alone.
  const int64_t sums = rows * depth * wide;
  const int64_t parts = std::min<int64_t>(batch, sums > (1 << 18) ? 8 : 32);
  // So many images at a time share a visit to each block of sums, as fit the cache beside it.
  const int64_t group = std::max<int64_t>(1, (1 << 17) / (x_size + g_size));
  auto partial = std::make_unique<float[]>(parts * sums);
  // Rows that are gone through at once: few, to stay in the nearest cache, but enough pixels that
  // fetching and storing the sums costs little.
  const int64_t strip = std::min(gd[1], (63 + gd[2]) / gd[2]);
  const Walk whole{gd[1], gd[2], window.stride_y * padded.width * padded.channels,
                  window.stride_x * padded.channels, even.width * wide, wide};
  const float *xs = x.typed_data(), *gs = g.typed_data();
  float* total = partial.get();
  InParallel(pool, parts, [=](int64_t part) {
    float* sum = total + part * sums;
    const int64_t end = batch * (part + 1) / parts;
    for (int64_t first = batch * part / parts; first < end; first += group) {
      const int64_t count = std::min(group, end - first);
      float* xp = Scratch(0, group * x_size);
      float* copies = Scratch(1, wide == features ? 0 : group * g_size);
      for (int64_t i = 0; i < count; ++i) {
        Pad(xs + (first + i) * in.height * in.width * in.channels, in, window.top, window.left,
            padded, xp + i * x_size);
        if (wide != features)
          Pad(gs + (first + i) * out.height * out.width * features, out, 0, 0, even, copies + i * g_size);
      }
      const float* gp = wide == features ? gs + first * g_size : copies;
      for (int64_t y = 0; y < gd[1]; y += strip) {
        Walk walk = whole;
        walk.height = std::min(strip, gd[1] - y);
        for (int64_t f = 0; f < wide;) {
          const int vectors = VectorsAt(f, wide);
          const int64_t most = kAccumulators / vectors, blocks = (depth + most - 1) / most;
          for (int64_t r = 0; r < rows; ++r) {
            for (int64_t b = 0; b < blocks; ++b) {
              const int64_t k = depth * b / blocks, size = depth * (b + 1) / blocks - k;
              const auto outer = vectors == 2 ? kOuterWide[size - 1] : kOuterNarrow[size - 1];
              for (int64_t i = 0; i < count; ++i)
                outer(xp + i * x_size + y * walk.x_row + r * padded.width * padded.channels + k,
                      gp + i * g_size + y * walk.g_row + f, walk,
                      sum + (r * depth + k) * wide + f, wide);
            }
          }
          f += vectors * kLanes;
        }
      }
    }
  });
  float* to = dw->typed_data();
  for (int64_t i = 0; i < rows * depth; ++i) {
    for (int64_t f = 0; f < features; ++f) {
      float sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += total[part * sums + i * wide + f];
      to[i * features + f] = sum;
    }
  }
  return ffi::Error::Success();
}

#define IMGREC_HANDLER(name, implementation)                                                    \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(                                                                \
      name,                                                                                     \
      ([](ffi::ThreadPool pool, Buffer a, Buffer b, Result r, int64_t stride_y, int64_t stride_x, \
          int64_t top, int64_t left) {                                                          \
        return implementation(pool, a, b, r, Window{stride_y, stride_x, top, left});            \
      }),                                                                                       \
      ffi::Ffi::Bind()                                                                          \
          .Ctx<ffi::ThreadPool>()                                                               \
          .Arg<Buffer>()                                                                        \
          .Arg<Buffer>()                                                                        \
          .Ret<Buffer>()                                                                        \
          .Attr<int64_t>("stride_y")                                                            \
          .Attr<int64_t>("stride_x")                                                            \
          .Attr<int64_t>("top")                                                                 \
          .Attr<int64_t>("left"))

}  // namespace

extern "C" {
IMGREC_HANDLER(imgrec_convolution_forward, Forward);
IMGREC_HANDLER(imgrec_convolution_input_gradient, InputGradient);
IMGREC_HANDLER(imgrec_convolution_kernel_gradient, KernelGradient);
}
