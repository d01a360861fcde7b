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

#include "convolution.h"
#include "vector.h"

namespace {

// Floats that stay in the cache nearest to a core beside what else it needs.
constexpr int64_t kNearest = 6144;

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

// ---- a correlation of a padded image with packed weights: [features / block][rows * depth][block] ----

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

void Correlate(const Correlation& c, const float* weights, const float* padded, Image size,
               int64_t features, float* out) {
  const int64_t row = size.width * size.channels;
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

// Does with every image what the plan says; weights[i] are those of part i.
void Run(ffi::ThreadPool pool, const Plan& plan, const std::vector<std::vector<float>>& weights,
         const float* from, Result result) {
  const auto out = result->dimensions();
  const int64_t in_size = plan.in.height * plan.in.width * plan.in.channels;
  const int64_t out_size = out[1] * out[2] * out[3], features = out[3];
  float* to = result->typed_data();
  InParallel(pool, out[0], [=, &plan, &weights](int64_t i) {
    const Image& padded = plan.padded;
    float* scratch = Scratch<float>(0, padded.height * padded.width * padded.channels);
    Pad(from + i * in_size, plan.in, plan.top, plan.left, padded, scratch);
    for (size_t part = 0; part < plan.parts.size(); ++part)
      Correlate(plan.parts[part], weights[part].data(), scratch, padded, features,
                to + i * out_size);
  });
}

ffi::Error Forward(ffi::ThreadPool pool, Buffer x, Buffer w, Result y, Window window) {
  const Plan plan = ForwardPlan(x.dimensions(), w.dimensions(), y->dimensions(), window);
  const Correlation& c = plan.parts[0];
  const int64_t features = w.dimensions()[3];
  const float* weights = w.typed_data();
  const auto packed = Pack(c.rows, c.depth, features, [&](int64_t r, int64_t k, int64_t f) {
    return weights[(r * c.depth + k) * features + f];
  });
  Run(pool, plan, {packed}, x.typed_data(), y);
  return ffi::Error::Success();
}

ffi::Error InputGradient(ffi::ThreadPool pool, Buffer g, Buffer w, Result dx, Window window) {
  const auto wd = w.dimensions();
  const Plan plan = InputGradientPlan(g.dimensions(), wd, dx->dimensions(), window);
  const float* weights = w.typed_data();
  std::vector<std::vector<float>> packed;
  for (const Correlation& c : plan.parts)
    packed.push_back(Pack(c.rows, c.depth, wd[2], [&](int64_t r, int64_t k, int64_t channel) {
      return weights[WeightAt(c, window, wd, r, k) + channel * wd[3]];
    }));
  Run(pool, plan, packed, g.typed_data(), dx);
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
      float* xp = Scratch<float>(0, group * x_size);
      float* copies = Scratch<float>(1, wide == features ? 0 : group * g_size);
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

}  // namespace

extern "C" {
IMGREC_HANDLER(imgrec_convolution_forward, Forward);
IMGREC_HANDLER(imgrec_convolution_input_gradient, InputGradient);
IMGREC_HANDLER(imgrec_convolution_kernel_gradient, KernelGradient);
}
