// Convolutions of bfloat16 maps on the matrix unit of a processor (AMX), and their two gradients.
//
// A tile holds 16 rows of 64 bytes. One instruction adds to a tile of 16 x 16 float32 the product
// of a tile of 16 x 32 bfloat16, a row from each of 16 output pixels, and a tile of weights, in
// which two numbers that meet the same feature lie side by side:
//
//   sums[pixel][feature] += maps[pixel][2 k] * weights[k][feature][0]
//                         + maps[pixel][2 k + 1] * weights[k][feature][1]
//
// Everything is summed in float32 and rounded once. What is summed in which order depends on the
// shapes alone, as in convolution.cc. Where a sum is not a multiple of 32 long, the weights are
// zero and the numbers beside the window are read: one that is infinite makes its neighbours in
// the same image NaN.

#include "convolution.h"

#if defined(__linux__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && \
    defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr int64_t kSide = 16;                // rows of a tile; numbers of 32 bits in one
constexpr int64_t kDepth = 2 * kSide;        // bfloat16 in a row of a tile
constexpr int64_t kTile = kSide * kDepth;    // bfloat16 in a tile
constexpr int64_t kSums = kSide * kSide;     // float32 in a tile
constexpr int64_t kRowBytes = 4 * kSide;

// ---- tiles ----

// While it lives, this thread has tiles 0 to 6 of `rows` rows and tile 7 of 16.
class Tiles {
 public:
  explicit Tiles(int64_t rows) {
    struct {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {};
      uint8_t rows[16] = {};
    } config;
    for (int t = 0; t < 8; ++t) config.row_bytes[t] = kRowBytes, config.rows[t] = t < 7 ? rows : kSide;
    asm volatile("ldtilecfg %0" ::"m"(config));
  }
  ~Tiles() { asm volatile("tilerelease"); }
};

template <int T>
inline void Zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(T));
}

template <int T>
inline void Load(const void* at, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(at), "r"(stride), "i"(T) : "memory");
}

template <int T>
inline void Store(float* at) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(at), "r"(kRowBytes), "i"(T) : "memory");
}

template <int Sum, int A, int B>
inline void MultiplyAdd() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(A), "i"(B));
}

// ---- vectors ----

// The first `count` of 16.
__mmask16 First(int64_t count) { return (1u << std::clamp<int64_t>(count, 0, 16)) - 1; }

// a[0], b[0], a[1], b[1], ... of up to 16 numbers each, zeros in the place of others and of null.
inline __m512i Interleaved(const Half* a, const Half* b, __mmask16 some) {
  const auto wide = [some](const Half* at) {
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(at ? some : 0, at));
  };
  return _mm512_or_si512(wide(a), _mm512_slli_epi32(wide(b), 16));
}

inline void RoundedStore(__m512 v, Half* at, __mmask16 some) {
  _mm256_mask_storeu_epi16(at, some, (__m256i)_mm512_cvtneps_pbh(v));
}

// Of numbers of 32 bits.
inline void Transpose(__m512i (&v)[kSide]) {
  __m512i a[kSide], b[kSide];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    a[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    a[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
    b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
    b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
    b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i even = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88);
    const __m512i odd = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xdd);
    const __m512i even_below = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88);
    const __m512i odd_below = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xdd);
    v[i] = _mm512_shuffle_i32x4(even, even_below, 0x88);
    v[i + 4] = _mm512_shuffle_i32x4(odd, odd_below, 0x88);
    v[i + 8] = _mm512_shuffle_i32x4(even, even_below, 0xdd);
    v[i + 12] = _mm512_shuffle_i32x4(odd, odd_below, 0xdd);
  }
}

// ---- a correlation of a padded image with packed weights ----

// Of M times 16 pixels and 16 features. under[i]: the first numbers of the i-th 16 pixels, that
// are `pixel` numbers apart; `row` is the distance to the next row of the kernel, of which `rows`
// are summed, each of `tiles` times 32 numbers.
template <int... I>
void Block(std::integer_sequence<int, I...>, const Half* const* under, int64_t pixel, int64_t row,
           int64_t rows, int64_t tiles, const Half* weights, float* sums) {
  (Zero<I>(), ...);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t t = 0; t < tiles; ++t, weights += kTile) {
      const int64_t offset = r * row + t * kDepth;
      Load<7>(weights, kRowBytes);
      ((Load<4 + I % 3>(under[I] + offset, pixel * sizeof(Half)), MultiplyAdd<I, 4 + I % 3, 7>()),
       ...);
    }
  }
  (Store<I>(sums + I * kSums), ...);
}

template <int M>
void BlockOf(const Half* const* under, int64_t pixel, int64_t row, int64_t rows, int64_t tiles,
             const Half* weights, float* sums) {
  Block(std::make_integer_sequence<int, M>(), under, pixel, row, rows, tiles, weights, sums);
}

constexpr int kMost = 4;
constexpr std::array<decltype(&BlockOf<1>), kMost> kBlocks = {BlockOf<1>, BlockOf<2>, BlockOf<3>,
                                                              BlockOf<4>};

int64_t TilesOf(int64_t depth) { return (depth + kDepth - 1) / kDepth; }

// weights: [features / 16][rows][TilesOf(depth)] tiles.
void Correlate(const Correlation& c, const Half* weights, const Half* padded, Image size,
               int64_t features, Half* out) {
  // The pixels of a row in equal parts; the last may overlap the one before.
  const int64_t parts = (c.width + kSide - 1) / kSide;
  if (parts == 0) return;
  const int64_t pixels = (c.width + parts - 1) / parts, count = c.height * parts;
  const int64_t row = size.width * size.channels, tiles = TilesOf(c.depth);
  const Tiles configured(pixels);
  alignas(kCacheLine) float sums[kMost * kSums];
  for (int64_t first = 0; first < count; first += kMost) {
    const int64_t most = std::min<int64_t>(kMost, count - first);
    const Half* under[kMost];
    Half* to[kMost];
    for (int64_t i = 0; i < most; ++i) {
      const int64_t y = (first + i) / parts;
      const int64_t x = std::min((first + i) % parts * pixels, c.width - pixels);
      under[i] = padded + (c.top + y * c.step_y) * row + (c.left + x * c.step_x) * size.channels;
      to[i] = out + c.out_offset + y * c.out_row + x * c.out_pixel;
    }
    for (int64_t f = 0; f < features; f += kSide) {
      kBlocks[most - 1](under, c.step_x * size.channels, row, c.rows, tiles,
                        weights + f * c.rows * tiles * kDepth, sums);
      const __mmask16 some = First(features - f);
      for (int64_t i = 0; i < most; ++i)
        for (int64_t p = 0; p < pixels; ++p)
          RoundedStore(_mm512_load_ps(sums + i * kSums + p * kSide), to[i] + p * c.out_pixel + f,
                       some);
    }
  }
}

// ---- packing weights ----

using Weights = Aligned<Half>;

// From [rows][depth][features].
Weights Packed(const Half* weights, int64_t rows, int64_t depth, int64_t features) {
  const int64_t tiles = TilesOf(depth);
  Weights packed(RoundUp(features, kSide) * rows * tiles * kDepth);
  Half* to = packed.data();
  for (int64_t f = 0; f < features; f += kSide) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t k = 0; k < tiles * kDepth; k += 2, to += kDepth) {
        const auto at = [&](int64_t i) {
          return i < depth ? weights + (r * depth + i) * features + f : nullptr;
        };
        _mm512_store_si512(to, Interleaved(at(k), at(k + 1), First(features - f)));
      }
    }
  }
  return packed;
}

// Those of the input's gradient: what are features elsewhere is summed, and channels come out.
Weights PackedForGradient(const Half* weights, const Correlation& c, Window window, Dimensions w) {
  const int64_t tiles = TilesOf(c.depth), channels = w[2], features = w[3];
  Weights packed(RoundUp(channels, kSide) * c.rows * tiles * kDepth);
  Half* to = packed.data();
  for (int64_t first = 0; first < channels; first += kSide) {
    const int64_t count = std::min(kSide, channels - first);
    for (int64_t r = 0; r < c.rows; ++r) {
      for (int64_t k = 0; k < tiles * kDepth; k += kDepth, to += kTile) {
        if (features % kDepth == 0) {
          const Half* from = weights + WeightAt(c, window, w, r, k) + first * features;
          __m512i v[kSide] = {};
          for (int64_t i = 0; i < count; ++i) v[i] = _mm512_loadu_si512(from + i * features);
          Transpose(v);
          for (int64_t i = 0; i < kSide; ++i) _mm512_store_si512(to + i * kDepth, v[i]);
          continue;
        }
        for (int64_t i = k; i < std::min(k + kDepth, c.depth); ++i) {
          const Half* from = weights + WeightAt(c, window, w, r, i) + first * features;
          Half* under = to + (i - k) / 2 * kDepth + i % 2;
          for (int64_t n = 0; n < count; ++n) under[2 * n] = from[n * features];
        }
      }
    }
  }
  return packed;
}

// ---- the kernel's gradient ----

// It is a product over pixels: a tile of the output's gradient is [16 features][32 pixels], one of
// the input [16 pairs of pixels][16 channels][2]. Both are read along a grid of the output's
// pixels whose rows are so wide that a step along the kernel is a step along the grid. Where
// convolutions stride, there is one grid for each position among the strides; and one beginning
// with an odd pixel, for odd steps.
struct Grid {
  int64_t width, tiles;                            // pixels of a row; times 32 pixels in all
  int64_t pairs;                                   // of pixels, as many as are read
  std::vector<std::vector<int64_t>> sources;       // of each grid: where its pixels lie in the map
  std::vector<int64_t> tap_grid, tap_pair;         // of each tap: its grid, and the first pair
};

constexpr int64_t kOutside = -1;

Grid GridOf(Dimensions x, Dimensions g, Dimensions w, Window window) {
  Grid grid;
  const int64_t beyond_y = (w[0] - 1) / window.stride_y, beyond_x = (w[1] - 1) / window.stride_x;
  grid.width = RoundUp(g[2] + beyond_x, 2);
  grid.tiles = TilesOf(g[1] * grid.width);
  grid.pairs = grid.tiles * kSide + (beyond_y * grid.width + beyond_x) / 2 + 1;
  std::vector<int64_t> known(window.stride_y * window.stride_x * 2, -1);
  for (int64_t r = 0; r < w[0]; ++r) {
    for (int64_t k = 0; k < w[1]; ++k) {
      const int64_t py = r % window.stride_y, px = k % window.stride_x;
      const int64_t step = r / window.stride_y * grid.width + k / window.stride_x;
      int64_t& which = known[(py * window.stride_x + px) * 2 + step % 2];
      if (which < 0) {
        which = grid.sources.size();
        auto& sources = grid.sources.emplace_back(2 * grid.pairs, kOutside);
        for (int64_t i = 0; i < 2 * grid.pairs; ++i) {
          const int64_t pixel = i + step % 2;
          const int64_t row = pixel / grid.width * window.stride_y + py - window.top;
          const int64_t column = pixel % grid.width * window.stride_x + px - window.left;
          if (row >= 0 && row < x[1] && column >= 0 && column < x[2])
            sources[i] = (row * x[2] + column) * x[3];
        }
      }
      grid.tap_grid.push_back(which);
      grid.tap_pair.push_back(step / 2);
    }
  }
  return grid;
}

// [pairs][channels, rounded up to 16s][2]
void Pair(const Half* map, const std::vector<int64_t>& sources, int64_t channels, Half* to) {
  for (size_t i = 0; i < sources.size(); i += 2) {
    const Half* a = sources[i] == kOutside ? nullptr : map + sources[i];
    const Half* b = sources[i + 1] == kOutside ? nullptr : map + sources[i + 1];
    for (int64_t c = 0; c < channels; c += kSide, to += kDepth)
      _mm512_store_si512(to, Interleaved(a ? a + c : a, b ? b + c : b, First(channels - c)));
  }
}

// [tiles][features / 16] tiles of the output's gradient.
void TransposeOnto(const Grid& grid, const Half* gradient, Dimensions g, Half* to) {
  const int64_t features = g[3];
  for (int64_t pixel = 0; pixel < grid.tiles * kDepth; pixel += kDepth) {
    for (int64_t f = 0; f < features; f += kSide, to += kTile) {
      const auto at = [&](int64_t i) -> const Half* {
        const int64_t y = i / grid.width, x = i % grid.width;
        return y < g[1] && x < g[2] ? gradient + (y * g[2] + x) * features + f : nullptr;
      };
      __m512i v[kSide];
      for (int64_t i = 0; i < kSide; ++i)
        v[i] = Interleaved(at(pixel + 2 * i), at(pixel + 2 * i + 1), First(features - f));
      Transpose(v);
      for (int64_t i = 0; i < kSide; ++i) _mm512_store_si512(to + i * kDepth, v[i]);
    }
  }
}

struct Operand {  // distances in numbers
  int64_t image, tile, stride;
};

template <int M, int N, int I>
inline void Column(const Half* b, int64_t stride) {
  Load<6 + I % 2>(b, stride * sizeof(Half));
  MultiplyAdd<I, 4, 6 + I % 2>();
  if constexpr (M == 2) MultiplyAdd<N + I, 5, 6 + I % 2>();
}

// M times 16 features by the N times 16 channels that bs[0], bs[1], ... point to, over images.
// With `more` the sums, `across` numbers apart along features, go on from what they are.
template <int M, int... I>
void Outer(std::integer_sequence<int, I...>, const Half* a, Operand features, const Half* const* bs,
           Operand channels, int64_t images, int64_t tiles, bool more, float* sums,
           int64_t across) {
  constexpr int N = sizeof...(I);
  if (more) {
    (Load<I>(sums + I * kSums, kRowBytes), ...);
    if constexpr (M == 2) (Load<N + I>(sums + across + I * kSums, kRowBytes), ...);
  } else {
    (Zero<I>(), ...);
    if constexpr (M == 2) (Zero<N + I>(), ...);
  }
  for (int64_t i = 0; i < images; ++i) {
    const Half* at = a + i * features.image;
    int64_t offset = i * channels.image;
    for (int64_t t = 0; t < tiles; ++t, at += features.tile, offset += channels.tile) {
      Load<4>(at, kRowBytes);
      if constexpr (M == 2) Load<5>(at + kTile, kRowBytes);
      (Column<M, N, I>(bs[I] + offset, channels.stride), ...);
    }
  }
  (Store<I>(sums + I * kSums), ...);
  if constexpr (M == 2) (Store<N + I>(sums + across + I * kSums), ...);
}

template <int M, int N>
void OuterOf(const Half* a, Operand features, const Half* const* bs, Operand channels,
             int64_t images, int64_t tiles, bool more, float* sums, int64_t across) {
  Outer<M>(std::make_integer_sequence<int, N>(), a, features, bs, channels, images, tiles, more,
           sums, across);
}

using OuterFn = decltype(&OuterOf<1, 1>);
constexpr std::array<OuterFn, 4> kOuter = {OuterOf<1, 1>, OuterOf<1, 2>, OuterOf<1, 3>,
                                           OuterOf<1, 4>};
constexpr std::array<OuterFn, 2> kOuterOfTwo = {OuterOf<2, 1>, OuterOf<2, 2>};

// ---- the three custom calls ----

using Buffer = ffi::Buffer<ffi::BF16>;
using Result = ffi::ResultBuffer<ffi::BF16>;

// Does with every image what the plan says; weights[i] are those of part i.
void Run(ffi::ThreadPool pool, const Plan& plan, const std::vector<Weights>& weights,
         const Half* from, Result result) {
  const auto out = result->dimensions();
  const int64_t in_size = plan.in.height * plan.in.width * plan.in.channels;
  const int64_t out_size = out[1] * out[2] * out[3], features = out[3];
  Half* to = result->typed_data();
  // Where there are no margins and tiles are full, the image is read as it lies.
  bool as_it_lies = plan.top == 0 && plan.left == 0 && plan.padded.height <= plan.in.height &&
                    plan.padded.width <= plan.in.width;
  for (const Correlation& c : plan.parts) as_it_lies = as_it_lies && c.depth % kDepth == 0;
  InParallel(pool, out[0], [=, &plan, &weights](int64_t i) {
    const Half* image = from + i * in_size;
    if (!as_it_lies) {
      const Image& padded = plan.padded;
      const int64_t size = padded.height * padded.width * padded.channels;
      Half* scratch = Scratch<Half>(0, size + kDepth);
      Pad(image, plan.in, plan.top, plan.left, padded, scratch);
      std::fill_n(scratch + size, kDepth, Half{0});
      image = scratch;
    }
    for (size_t part = 0; part < plan.parts.size(); ++part)
      Correlate(plan.parts[part], weights[part].data(), image,
                as_it_lies ? plan.in : plan.padded, features, to + i * out_size);
  });
}

ffi::Error Forward(ffi::ThreadPool pool, Buffer x, Buffer w, Result y, Window window) {
  const Plan plan = ForwardPlan(x.dimensions(), w.dimensions(), y->dimensions(), window);
  const Correlation& c = plan.parts[0];
  std::vector<Weights> packed;
  packed.push_back(Packed(w.typed_data(), c.rows, c.depth, w.dimensions()[3]));
  Run(pool, plan, packed, x.typed_data(), y);
  return ffi::Error::Success();
}

ffi::Error InputGradient(ffi::ThreadPool pool, Buffer g, Buffer w, Result dx, Window window) {
  const Plan plan = InputGradientPlan(g.dimensions(), w.dimensions(), dx->dimensions(), window);
  std::vector<Weights> packed;
  for (const Correlation& c : plan.parts)
    packed.push_back(PackedForGradient(w.typed_data(), c, window, w.dimensions()));
  Run(pool, plan, packed, g.typed_data(), dx);
  return ffi::Error::Success();
}

ffi::Error KernelGradient(ffi::ThreadPool pool, Buffer x, Buffer g, Result dw, Window window) {
  const auto xd = x.dimensions(), gd = g.dimensions(), wd = dw->dimensions();
  const int64_t batch = xd[0], channels = wd[2], features = wd[3], taps = wd[0] * wd[1];
  const Grid grid = GridOf(xd, gd, wd, window);
  const int64_t wide = RoundUp(channels, kSide), high = RoundUp(features, kSide);
  const int64_t paired = grid.pairs * wide * 2;
  const Operand along{grid.tiles * high * kDepth, high * kDepth, 0};
  const Operand across{static_cast<int64_t>(grid.sources.size()) * paired, kSide * wide * 2,
                       wide * 2};
  // Sums are tiles [features / 16][taps, channels / 16]. Parts of the batch are summed apart and
  // then in order. Their number is of the shapes alone.
  const int64_t units = taps * wide / kSide, sums = high * units * kSide;
  const int64_t parts = std::min(batch, std::clamp<int64_t>((1 << 18) / sums, 4, 32));
  // So many images at a time share a visit to each block of sums, as fit the cache beside it.
  const int64_t group = std::max<int64_t>(1, (1 << 18) / (along.image + across.image));
  const Aligned<float> partial(parts * sums);
  const Half *xs = x.typed_data(), *gs = g.typed_data();
  float* const total = partial.data();
  InParallel(pool, parts, [=, &grid](int64_t part) {
    const Tiles configured(kSide);
    Half* gp = Scratch<Half>(0, group * along.image);
    Half* xp = Scratch<Half>(1, group * across.image);
    const int64_t begin = batch * part / parts, end = batch * (part + 1) / parts;
    for (int64_t first = begin; first < end; first += group) {
      const int64_t count = std::min(group, end - first);
      for (int64_t i = 0; i < count; ++i) {
        TransposeOnto(grid, gs + (first + i) * gd[1] * gd[2] * features, gd, gp + i * along.image);
        for (size_t s = 0; s < grid.sources.size(); ++s)
          Pair(xs + (first + i) * xd[1] * xd[2] * channels, grid.sources[s], channels,
               xp + i * across.image + s * paired);
      }
      for (int64_t f = 0; f < high / kSide;) {
        const int64_t m = std::min<int64_t>(2, high / kSide - f), most = m == 2 ? 2 : 4;
        for (int64_t u = 0; u < units; u += most) {
          const int64_t n = std::min(most, units - u);
          const Half* bs[4];
          for (int64_t i = 0; i < n; ++i) {
            const int64_t tap = (u + i) / (wide / kSide), block = (u + i) % (wide / kSide);
            bs[i] = xp + grid.tap_grid[tap] * paired + grid.tap_pair[tap] * wide * 2 +
                    block * kDepth;
          }
          const auto outer = m == 2 ? kOuterOfTwo[n - 1] : kOuter[n - 1];
          outer(gp + f * kTile, along, bs, across, count, grid.tiles, first > begin,
                total + part * sums + (f * units + u) * kSums, units * kSums);
        }
        f += m;
      }
    }
  });
  Half* const to = dw->typed_data();
  InParallel(pool, high / kSide, [=](int64_t f) {
    for (int64_t u = 0; u < units; ++u) {
      __m512i v[kSide];
      for (int64_t i = 0; i < kSide; ++i) {
        __m512 sum = _mm512_setzero_ps();
        for (int64_t part = 0; part < parts; ++part)
          sum += _mm512_load_ps(total + part * sums + (f * units + u) * kSums + i * kSide);
        v[i] = _mm512_castps_si512(sum);
      }
      Transpose(v);
      const int64_t tap = u / (wide / kSide), c = u % (wide / kSide) * kSide;
      for (int64_t i = 0; i < std::min(kSide, channels - c); ++i)
        RoundedStore(_mm512_castsi512_ps(v[i]),
                     to + (tap * channels + c + i) * features + f * kSide,
                     First(features - f * kSide));
    }
  });
  return ffi::Error::Success();
}

}  // namespace

extern "C" {
IMGREC_HANDLER(imgrec_convolution_forward_bfloat16, Forward);
IMGREC_HANDLER(imgrec_convolution_input_gradient_bfloat16, InputGradient);
IMGREC_HANDLER(imgrec_convolution_kernel_gradient_bfloat16, KernelGradient);

// Whether the system lets this process use the unit, which has to be asked for once.
int imgrec_bfloat16() {
  constexpr int kRequest = 0x1023, kTileData = 18;  // of arch_prctl(2)
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}
}

#else

extern "C" int imgrec_bfloat16() { return 0; }

#endif
