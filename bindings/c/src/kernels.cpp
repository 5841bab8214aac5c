#include "kernels.hpp"

#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define CLIPEDGE_AVX2 __attribute__((target("avx2")))
#endif
#if defined(__GNUC__)
#define CLIPEDGE_INLINE inline __attribute__((always_inline))  // into both compiled forms
#else
#define CLIPEDGE_INLINE inline
#endif

namespace clipedge {
namespace {

using Byte = std::uint8_t;

CLIPEDGE_INLINE Byte clip(std::int32_t value) {
    return static_cast<Byte>(value < 0 ? 0 : value > 255 ? 255 : value);
}

CLIPEDGE_INLINE void interleave(const Byte* const* rows, std::size_t count, Byte* __restrict out) {
    const Byte* from[lanes];
    for (std::size_t lane = 0; lane < lanes; ++lane) from[lane] = rows[lane];
    for (std::size_t i = 0; i < count; ++i) {
        for (std::size_t lane = 0; lane < lanes; ++lane) out[lanes * i + lane] = from[lane][i];
    }
}

CLIPEDGE_INLINE void deinterleave(const Byte* in, std::size_t count, Byte* const* rows) {
    // The same again: sixteen columns of sixteen lanes become sixteen lanes of sixteen columns.
    for (std::size_t start = 0; start < count; start += lanes) {
        const Byte* columns[lanes];
        Byte square[lanes * lanes];
        for (std::size_t i = 0; i < lanes; ++i) columns[i] = in + lanes * (start + i);
        interleave(columns, lanes, square);
        for (std::size_t lane = 0; lane < lanes; ++lane) std::memcpy(rows[lane] + start, square + lanes * lane, lanes);
    }
}

// out[i] = the weighted sum of in[i], in[i + stride], ... for one block.
CLIPEDGE_INLINE void weigh(const Byte* in, std::size_t stride, const std::int32_t* weights, std::int32_t taps,
                           Byte* __restrict out) {
    std::int32_t sums[block];
    for (std::size_t i = 0; i < block; ++i) sums[i] = 1 << (weight_bits - 1);
    for (std::int32_t tap = 0; tap < taps; ++tap, in += stride) {
        for (std::size_t i = 0; i < block; ++i) sums[i] += weights[tap] * in[i];
    }
    for (std::size_t i = 0; i < block; ++i) out[i] = clip(sums[i] >> weight_bits);
}

CLIPEDGE_INLINE void along_rows(const Byte* in, const Axis& axis, std::int32_t origin, Byte* out) {
    const std::size_t outputs = axis.first.size();
    for (std::size_t i = 0; i < outputs; ++i) {
        const Byte* from = in + block * static_cast<std::size_t>(axis.first[i] - origin);
        weigh(from, block, axis.weights.data() + i * axis.reach, axis.taps[i], out + i * block);
    }
}

CLIPEDGE_INLINE void along_columns(const Byte* in, std::size_t stride, const std::int32_t* weights, std::int32_t taps,
                                   std::size_t blocks, Byte* out) {
    for (std::size_t i = 0; i < blocks; ++i) weigh(in + i * block, stride, weights, taps, out + i * block);
}

CLIPEDGE_INLINE std::int32_t times(Slope slope, std::int32_t x) {
    return slope.whole * x + ((slope.part * x + (1 << (colour_bits - 1))) >> colour_bits);
}

// The step is a constant where the loop is compiled: that vectorises it.
template <std::size_t step>
CLIPEDGE_INLINE void chroma_of(const YuvRow& row, const YuvSlopes& slopes, std::size_t samples,
                               std::int32_t* __restrict red, std::int32_t* __restrict green,
                               std::int32_t* __restrict blue) {
    const Byte *cb_samples = row.cb, *cr_samples = row.cr;
    const YuvSlopes by = slopes;
    for (std::size_t i = 0; i < samples; ++i) {
        const std::int32_t cb = cb_samples[step * i] - 128, cr = cr_samples[step * i] - 128;
        red[2 * i] = red[2 * i + 1] = times(by.cr_to_red, cr);
        green[2 * i] = green[2 * i + 1] = times(by.cb_to_green, cb) + times(by.cr_to_green, cr);
        blue[2 * i] = blue[2 * i + 1] = times(by.cb_to_blue, cb);
    }
}

CLIPEDGE_INLINE void chroma(const YuvRow& row, const YuvSlopes& slopes, std::size_t samples, std::int32_t* red,
                            std::int32_t* green, std::int32_t* blue) {
    if (row.chroma_step == 1) chroma_of<1>(row, slopes, samples, red, green, blue);
    if (row.chroma_step == 2) chroma_of<2>(row, slopes, samples, red, green, blue);
    if (row.chroma_step == 4) chroma_of<4>(row, slopes, samples, red, green, blue);
}

template <std::size_t step>
CLIPEDGE_INLINE void rgb_of(const YuvRow& row, const YuvSlopes& slopes, const std::int32_t* red,
                            const std::int32_t* green, const std::int32_t* blue, std::size_t count,
                            Byte* __restrict rgb) {
    const Byte* luma = row.luma;
    const Slope slope = slopes.luma;
    const std::int32_t zero = slopes.zero, half = 1 << (colour_bits - 1);
    for (std::size_t x = 0; x < count; ++x) {
        const std::int32_t grey = times(slope, luma[step * x] - zero) + half;
        rgb[3 * x + 0] = clip((grey + red[x]) >> colour_bits);
        rgb[3 * x + 1] = clip((grey + green[x]) >> colour_bits);
        rgb[3 * x + 2] = clip((grey + blue[x]) >> colour_bits);
    }
}

CLIPEDGE_INLINE void yuv_to_rgb(const YuvRow& row, const YuvSlopes& slopes, const std::int32_t* red,
                                const std::int32_t* green, const std::int32_t* blue, std::size_t count, Byte* rgb) {
    if (row.luma_step == 1) rgb_of<1>(row, slopes, red, green, blue, count, rgb);
    if (row.luma_step == 2) rgb_of<2>(row, slopes, red, green, blue, count, rgb);
}

CLIPEDGE_INLINE void bgr_to_rgb(const Byte* in, std::size_t count, Byte* __restrict rgb) {
    for (std::size_t x = 0; x < count; ++x) {
        rgb[3 * x + 0] = in[3 * x + 2];
        rgb[3 * x + 1] = in[3 * x + 1];
        rgb[3 * x + 2] = in[3 * x + 0];
    }
}

CLIPEDGE_INLINE void rgba_to_rgb(const Byte* in, std::size_t count, Byte* __restrict rgb) {
    for (std::size_t x = 0; x < count; ++x) {
        rgb[3 * x + 0] = in[4 * x + 0];
        rgb[3 * x + 1] = in[4 * x + 1];
        rgb[3 * x + 2] = in[4 * x + 2];
    }
}

CLIPEDGE_INLINE void bgra_to_rgb(const Byte* in, std::size_t count, Byte* __restrict rgb) {
    for (std::size_t x = 0; x < count; ++x) {
        rgb[3 * x + 0] = in[4 * x + 2];
        rgb[3 * x + 1] = in[4 * x + 1];
        rgb[3 * x + 2] = in[4 * x + 0];
    }
}

constexpr Kernels portable{interleave, deinterleave, along_rows,  along_columns, chroma,
                           yuv_to_rgb, bgr_to_rgb,   rgba_to_rgb, bgra_to_rgb};

#ifdef CLIPEDGE_AVX2
CLIPEDGE_AVX2 void interleave_avx2(const Byte* const* rows, std::size_t count, Byte* out) {
    interleave(rows, count, out);
}

CLIPEDGE_AVX2 void deinterleave_avx2(const Byte* in, std::size_t count, Byte* const* rows) {
    deinterleave(in, count, rows);
}

CLIPEDGE_AVX2 void along_rows_avx2(const Byte* in, const Axis& axis, std::int32_t origin, Byte* out) {
    along_rows(in, axis, origin, out);
}

CLIPEDGE_AVX2 void along_columns_avx2(const Byte* in, std::size_t stride, const std::int32_t* weights,
                                      std::int32_t taps, std::size_t blocks, Byte* out) {
    along_columns(in, stride, weights, taps, blocks, out);
}

CLIPEDGE_AVX2 void chroma_avx2(const YuvRow& row, const YuvSlopes& slopes, std::size_t samples, std::int32_t* red,
                               std::int32_t* green, std::int32_t* blue) {
    chroma(row, slopes, samples, red, green, blue);
}

CLIPEDGE_AVX2 void yuv_to_rgb_avx2(const YuvRow& row, const YuvSlopes& slopes, const std::int32_t* red,
                                   const std::int32_t* green, const std::int32_t* blue, std::size_t count, Byte* rgb) {
    yuv_to_rgb(row, slopes, red, green, blue, count, rgb);
}

CLIPEDGE_AVX2 void bgr_to_rgb_avx2(const Byte* in, std::size_t count, Byte* rgb) { bgr_to_rgb(in, count, rgb); }

CLIPEDGE_AVX2 void rgba_to_rgb_avx2(const Byte* in, std::size_t count, Byte* rgb) { rgba_to_rgb(in, count, rgb); }

CLIPEDGE_AVX2 void bgra_to_rgb_avx2(const Byte* in, std::size_t count, Byte* rgb) { bgra_to_rgb(in, count, rgb); }

constexpr Kernels avx2{interleave_avx2, deinterleave_avx2, along_rows_avx2,  along_columns_avx2, chroma_avx2,
                       yuv_to_rgb_avx2, bgr_to_rgb_avx2,   rgba_to_rgb_avx2, bgra_to_rgb_avx2};
#endif

}  // namespace

const Kernels& portable_kernels() { return portable; }

const Kernels* avx2_kernels() {
#ifdef CLIPEDGE_AVX2
    return __builtin_cpu_supports("avx2") ? &avx2 : nullptr;
#else
    return nullptr;
#endif
}

const Kernels& fastest_kernels() {
    const Kernels* avx2_or_none = avx2_kernels();
    return avx2_or_none != nullptr ? *avx2_or_none : portable;
}

}  // namespace clipedge
