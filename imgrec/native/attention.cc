// Dot-product attention of float32 heads on CPUs and its gradient, as XLA custom calls.
//
// Queries, keys and values are [batch, tokens, heads, width], as the projections before leave
// them, so nothing is transposed in memory. One head of one image at a time is copied into
// buffers that stay in the cache; its weights exist for a block of queries only. What the
// gradient needs of the weights is the logarithm of each query's sum of exponentials (Dao et al.
// 2022, "FlashAttention", https://arxiv.org/abs/2205.14135, algorithm 1 and appendix B).
//
// Every head is computed by one thread in one order, so results are the same to the bit on any
// number of cores.

#include "parallel.h"
#include "vector.h"

#include <cmath>

namespace {

constexpr int64_t kQueries = 64;  // whose weights exist at a time

// ---- a product of matrices ----

// out[m][n] (+)= sum over k of a[m * a_row + k * a_column] * b[k * stride + n], for P rows and N
// vectors; rows of b and out are `stride` and `out_stride` numbers long.
template <int P, int N>
void Tile(const float* a, int64_t a_row, int64_t a_column, const float* b, int64_t stride,
          int64_t depth, bool more, float* out, int64_t out_stride) {
  Vector sum[P][N] = {};
  if (more) {
#pragma GCC unroll 24
    for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) sum[p][n] = Load(out + p * out_stride + n * kLanes);
  }
  for (int64_t k = 0; k < depth; ++k, a += a_column, b += stride) {
    Vector v[N];
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) v[n] = Load(b + n * kLanes);
#pragma GCC unroll 24
    for (int p = 0; p < P; ++p) {
      const float x = a[p * a_row];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) sum[p][n] += x * v[n];
    }
  }
#pragma GCC unroll 24
  for (int p = 0; p < P; ++p)
#pragma GCC unroll 2
    for (int n = 0; n < N; ++n) Store(out + p * out_stride + n * kLanes, sum[p][n]);
}

using TileFn = decltype(&Tile<1, 1>);

template <int N, size_t... I>
constexpr std::array<TileFn, sizeof...(I)> Tiles(std::index_sequence<I...>) {
  return {&Tile<I + 1, N>...};
}

constexpr int kTall = kAccumulators / 2;
constexpr auto kNarrow = Tiles<1>(std::make_index_sequence<kTall>());
constexpr auto kWide = Tiles<2>(std::make_index_sequence<kTall>());

// A matrix in memory; element (i, j) is at[i * row + j * column].
struct Left {
  const float* at;
  int64_t row, column;
};

// out = a b, or out += a b with `more`: [rows, columns] of [rows, depth] and [depth, columns],
// where `columns` is a multiple of the lanes and the length of the rows of b and of out.
void Product(Left a, const float* b, int64_t rows, int64_t depth, int64_t columns, bool more,
             float* out) {
  const int64_t blocks = (rows + kTall - 1) / kTall;
  for (int64_t n = 0; n < columns;) {
    const bool wide = columns - n > kLanes;
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t begin = rows * block / blocks, size = rows * (block + 1) / blocks - begin;
      (wide ? kWide : kNarrow)[size - 1](a.at + begin * a.row, a.row, a.column, b + n, columns,
                                         depth, more, out + begin * columns + n, columns);
    }
    n += wide ? 2 * kLanes : kLanes;
  }
}

// ---- heads ----

// Where a head lies among the others: the distance between its tokens, and its own numbers.
struct Heads {
  int64_t tokens, heads, width;
  int64_t wide() const { return RoundUp(width, kLanes); }
  int64_t stride() const { return heads * width; }
  int64_t begin(int64_t i) const {  // of head i % heads of image i / heads
    return i / heads * tokens * stride() + i % heads * width;
  }
};

// [count, wide] of tokens [first, first + count), with zeros behind each.
void Gather(const float* head, const Heads& h, int64_t first, int64_t count, float* out) {
  const int64_t wide = h.wide();
  for (int64_t t = 0; t < count; ++t, out += wide) {
    std::memcpy(out, head + (first + t) * h.stride(), h.width * sizeof(float));
    std::fill(out + h.width, out + wide, 0.0f);
  }
}

void Scatter(const float* rows, const Heads& h, int64_t first, int64_t count, float* head) {
  for (int64_t t = 0; t < count; ++t)
    std::memcpy(head + (first + t) * h.stride(), rows + t * h.wide(), h.width * sizeof(float));
}

// [width, columns] of all tokens, with zeros behind the last.
void GatherTransposed(const float* head, const Heads& h, int64_t columns, float* out) {
  for (int64_t d = 0; d < h.width; ++d, out += columns) {
    for (int64_t t = 0; t < h.tokens; ++t) out[t] = head[t * h.stride() + d];
    std::fill(out + h.tokens, out + columns, 0.0f);
  }
}

float Sum(Vector v) {
  float sum = 0;
  for (int i = 0; i < kLanes; ++i) sum += v[i];
  return sum;
}

float Largest(const float* row, int64_t n) {
  float largest = row[0];
  int64_t i = 0;
  if (n >= kLanes) {
    Vector most = Load(row);
    for (i = kLanes; i + kLanes <= n; i += kLanes) {
      const Vector v = Load(row + i);
      most = v > most ? v : most;
    }
    for (int lane = 0; lane < kLanes; ++lane) largest = std::max(largest, most[lane]);
  }
  for (; i < n; ++i) largest = std::max(largest, row[i]);
  return largest;
}

// The row becomes exp(scale * row - shift), and zero from n on; returns the sum.
float Exponentials(float* row, int64_t n, int64_t columns, float scale, float shift) {
  Vector sum = {};
  for (int64_t i = 0; i < columns; i += kLanes) {
    Vector e = Exp(scale * Load(row + i) - shift);
    if (i + kLanes > n)
      for (int lane = std::max<int64_t>(0, n - i); lane < kLanes; ++lane) e[lane] = 0;
    Store(row + i, e);
    sum += e;
  }
  return Sum(sum);
}

// ---- the two custom calls ----

using Buffer = ffi::Buffer<ffi::F32>;
using Result = ffi::ResultBuffer<ffi::F32>;

Heads HeadsOf(const Buffer& x) {
  return {x.dimensions()[1], x.dimensions()[2], x.dimensions()[3]};
}

ffi::Error Forward(ffi::ThreadPool pool, Buffer query, Buffer key, Buffer value, Result out,
                   Result log_sums) {
  const Heads q = HeadsOf(query), k = HeadsOf(key);
  const int64_t columns = RoundUp(k.tokens, kLanes), wide = q.wide();
  const float scale = 1 / std::sqrt(static_cast<float>(q.width));
  const float *qs = query.typed_data(), *ks = key.typed_data(), *vs = value.typed_data();
  float *outs = out->typed_data(), *logs = log_sums->typed_data();
  InParallel(pool, query.dimensions()[0] * q.heads, [=](int64_t i) {
    float* keys = Scratch<float>(
        0, q.width * columns + k.tokens * wide + kQueries * (columns + wide));
    float* values = keys + q.width * columns;
    float* weights = values + k.tokens * wide;
    float* read = weights + kQueries * columns;
    GatherTransposed(ks + k.begin(i), k, columns, keys);
    Gather(vs + k.begin(i), k, 0, k.tokens, values);
    for (int64_t first = 0; first < q.tokens; first += kQueries) {
      const int64_t rows = std::min(kQueries, q.tokens - first);
      const float* queries = qs + q.begin(i) + first * q.stride();
      Product({queries, q.stride(), 1}, keys, rows, q.width, columns, false, weights);
      float sums[kQueries];
      for (int64_t r = 0; r < rows; ++r) {
        float* row = weights + r * columns;
        const float shift = scale * Largest(row, k.tokens);
        sums[r] = Exponentials(row, k.tokens, columns, scale, shift);
        logs[i * q.tokens + first + r] = shift + std::log(sums[r]);
      }
      Product({weights, columns, 1}, values, rows, k.tokens, wide, false, read);
      for (int64_t r = 0; r < rows; ++r) {
        const Vector factor = Vector{} + 1 / sums[r];
        for (int64_t d = 0; d < wide; d += kLanes) {
          float* at = read + r * wide + d;
          Store(at, Load(at) * factor);
        }
      }
      Scatter(read, q, first, rows, outs + q.begin(i));
    }
  });
  return ffi::Error::Success();
}

ffi::Error Gradient(ffi::ThreadPool pool, Buffer query, Buffer key, Buffer value, Buffer out,
                    Buffer log_sums, Buffer gradient, Result of_query, Result of_key,
                    Result of_value) {
  const Heads q = HeadsOf(query), k = HeadsOf(key);
  const int64_t columns = RoundUp(k.tokens, kLanes), wide = q.wide();
  const float scale = 1 / std::sqrt(static_cast<float>(q.width));
  const float *qs = query.typed_data(), *ks = key.typed_data(), *vs = value.typed_data();
  const float *outs = out.typed_data(), *logs = log_sums.typed_data(), *gs = gradient.typed_data();
  float *dqs = of_query->typed_data(), *dks = of_key->typed_data(), *dvs = of_value->typed_data();
  InParallel(pool, query.dimensions()[0] * q.heads, [=](int64_t i) {
    const int64_t across = q.width * columns, all = k.tokens * wide, some = kQueries * wide;
    float* at = Scratch<float>(0, 2 * across + 3 * all + 3 * some + 2 * kQueries * columns);
    const auto next = [&at](int64_t size) { return std::exchange(at, at + size); };
    float *keys_across = next(across), *values_across = next(across), *keys = next(all);
    float *of_keys = next(all), *of_values = next(all);
    float *queries = next(some), *gradients = next(some), *of_queries = next(some);
    float *weights = next(kQueries * columns), *of_scores = next(kQueries * columns);
    GatherTransposed(ks + k.begin(i), k, columns, keys_across);
    GatherTransposed(vs + k.begin(i), k, columns, values_across);
    Gather(ks + k.begin(i), k, 0, k.tokens, keys);
    for (int64_t first = 0; first < q.tokens; first += kQueries) {
      const int64_t rows = std::min(kQueries, q.tokens - first);
      Gather(qs + q.begin(i), q, first, rows, queries);
      Gather(gs + q.begin(i), q, first, rows, gradients);
      Product({queries, wide, 1}, keys_across, rows, q.width, columns, false, weights);
      Product({gradients, wide, 1}, values_across, rows, q.width, columns, false, of_scores);
      for (int64_t r = 0; r < rows; ++r) {
        float *row = weights + r * columns, *of_row = of_scores + r * columns;
        Exponentials(row, k.tokens, columns, scale, logs[i * q.tokens + first + r]);
        const float* read = outs + q.begin(i) + (first + r) * q.stride();
        float agreed = 0;  // the weighted mean of the weights' gradients
        for (int64_t d = 0; d < q.width; ++d) agreed += read[d] * gradients[r * wide + d];
        for (int64_t c = 0; c < columns; c += kLanes)
          Store(of_row + c, Load(row + c) * (Load(of_row + c) - agreed) * scale);
      }
      const bool more = first > 0;
      Product({weights, 1, columns}, gradients, k.tokens, rows, wide, more, of_values);
      Product({of_scores, 1, columns}, queries, k.tokens, rows, wide, more, of_keys);
      Product({of_scores, columns, 1}, keys, rows, k.tokens, wide, false, of_queries);
      Scatter(of_queries, q, first, rows, dqs + q.begin(i));
    }
    Scatter(of_keys, k, 0, k.tokens, dks + k.begin(i));
    Scatter(of_values, k, 0, k.tokens, dvs + k.begin(i));
  });
  return ffi::Error::Success();
}

}  // namespace

extern "C" {
XLA_FFI_DEFINE_HANDLER_SYMBOL(imgrec_attention_forward, Forward,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Ret<Buffer>()
                                  .Ret<Buffer>());
XLA_FFI_DEFINE_HANDLER_SYMBOL(imgrec_attention_gradient, Gradient,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Arg<Buffer>()
                                  .Ret<Buffer>()
                                  .Ret<Buffer>()
                                  .Ret<Buffer>());
}
