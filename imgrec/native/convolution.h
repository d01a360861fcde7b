// What the convolutions of all types share: the image with its margins, what is summed along it, and
// the form of the custom calls.

#ifndef IMGREC_NATIVE_CONVOLUTION_H_
#define IMGREC_NATIVE_CONVOLUTION_H_

#include "parallel.h"

namespace {

struct Image {
  int64_t height, width, channels;
};

// One image inside zeros: `top` rows above it and `left` columns before it, cut or filled to
// `padded`'s size; `padded.channels` may exceed the image's, the rest being zeros.
template <typename T>
void Pad(const T* image, Image size, int64_t top, int64_t left, Image padded, T* out) {
  const int64_t c = size.channels, cp = padded.channels, row = padded.width * cp;
  std::memset(out, 0, padded.height * row * sizeof(T));
  const int64_t rows = std::min(size.height, padded.height - top);
  const int64_t columns = std::min(size.width, padded.width - left);
  for (int64_t y = std::max<int64_t>(0, -top); y < rows; ++y) {
    const int64_t x = std::max<int64_t>(0, -left);
    const T* from = image + (y * size.width + x) * c;
    T* to = out + (y + top) * row + (x + left) * cp;
    if (c == cp) {
      std::memcpy(to, from, (columns - x) * c * sizeof(T));
      continue;
    }
    for (int64_t i = x; i < columns; ++i, from += c, to += cp) std::memcpy(to, from, c * sizeof(T));
  }
}

struct Window {
  int64_t stride_y, stride_x, top, left;
};

// Along one axis, for the input pixels whose position leaves `phase` when divided by the stride:
// which rows (or columns) of the kernel reach them, and from where in the output's gradient.
struct Taps {
  int64_t first, count, begin;
};

inline Taps TapsOf(int64_t phase, int64_t stride, int64_t padding, int64_t size) {
  const int64_t first = (phase + padding) % stride;
  const int64_t count = first < size ? (size - first + stride - 1) / stride : 0;
  return {first, count, (phase + padding - first) / stride - (count - 1)};
}

// A correlation of a padded image with some of the kernel's rows and columns.
struct Correlation {
  int64_t rows, depth;              // of the kernel; depth is columns times channels
  int64_t top, left;                // where the first output pixel begins in the padded image
  int64_t step_y, step_x;           // from one output pixel to the next, in the padded image
  int64_t height, width;            // of the output
  int64_t out_offset, out_row, out_pixel;  // where it goes, in numbers
  Taps down, across;                // of the input's gradient: which rows and columns these are
};

// What is done with each image.
struct Plan {
  Image in, padded;
  int64_t top, left;  // margins of the padded image
  std::vector<Correlation> parts;
};

using Dimensions = ffi::Span<const int64_t>;

inline Plan ForwardPlan(Dimensions x, Dimensions w, Dimensions y, Window window) {
  Correlation c{};
  c.rows = w[0], c.depth = w[1] * w[2];
  c.step_y = window.stride_y, c.step_x = window.stride_x, c.height = y[1], c.width = y[2];
  c.out_row = y[2] * y[3], c.out_pixel = y[3];
  const Image padded{(y[1] - 1) * c.step_y + w[0], (y[2] - 1) * c.step_x + w[1], x[3]};
  return {{x[1], x[2], x[3]}, padded, window.top, window.left, {c}};
}

// One correlation for each of the positions that an input pixel has among the strides.
inline Plan InputGradientPlan(Dimensions g, Dimensions w, Dimensions dx, Window window) {
  const int64_t channels = dx[3], features = g[3];
  Plan plan{{g[1], g[2], features}, {1, 1, features}, 0, 0, {}};
  for (int64_t py = 0; py < window.stride_y; ++py)
    plan.top = std::max(plan.top, -TapsOf(py, window.stride_y, window.top, w[0]).begin);
  for (int64_t px = 0; px < window.stride_x; ++px)
    plan.left = std::max(plan.left, -TapsOf(px, window.stride_x, window.left, w[1]).begin);
  for (int64_t py = 0; py < std::min(window.stride_y, dx[1]); ++py) {
    for (int64_t px = 0; px < std::min(window.stride_x, dx[2]); ++px) {
      Correlation c{};
      c.down = TapsOf(py, window.stride_y, window.top, w[0]);
      c.across = TapsOf(px, window.stride_x, window.left, w[1]);
      c.rows = c.across.count ? c.down.count : 0, c.depth = c.across.count * features;
      c.top = c.down.begin + plan.top, c.left = c.across.begin + plan.left;
      c.step_y = c.step_x = 1;
      c.height = (dx[1] - py + window.stride_y - 1) / window.stride_y;
      c.width = (dx[2] - px + window.stride_x - 1) / window.stride_x;
      c.out_offset = (py * dx[2] + px) * channels;
      c.out_row = window.stride_y * dx[2] * channels, c.out_pixel = window.stride_x * channels;
      Image& padded = plan.padded;
      padded.height = std::max(padded.height, c.top + c.height - 1 + std::max<int64_t>(c.rows, 1));
      padded.width =
          std::max(padded.width, c.left + c.width - 1 + std::max<int64_t>(c.across.count, 1));
      plan.parts.push_back(c);
    }
  }
  return plan;
}

// Where in the kernel [rows, columns, channels, features] the gradient's correlation has the
// weight of its row r and of number k in that row, for the first channel.
inline int64_t WeightAt(const Correlation& c, Window window, Dimensions w, int64_t r, int64_t k) {
  const int64_t features = w[3];
  const int64_t row = c.down.first + (c.down.count - 1 - r) * window.stride_y;
  const int64_t column = c.across.first + (c.across.count - 1 - k / features) * window.stride_x;
  return (row * w[1] + column) * w[2] * features + k % features;
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

#endif  // IMGREC_NATIVE_CONVOLUTION_H_
