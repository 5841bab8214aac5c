// Weights in double precision, in the order of operations of Pillow's src/libImaging/Resample.c, rounded to 22 bits: a
// weight that differs in the last bit moves pixels by one. Compile without contraction into fused multiply-adds.
#include "axis.hpp"

#include <algorithm>
#include <cmath>

namespace clipedge {
namespace {

constexpr double pi = 3.14159265358979323846;

double support_of(Interpolation interpolation) {
    switch (interpolation) {
        case Interpolation::bilinear:
            return 1.0;
        case Interpolation::bicubic:
            return 2.0;
        default:
            return 3.0;
    }
}

double bilinear(double x) {
    x = std::fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

// Keys' cubic convolution with a = -1/2.
double bicubic(double x) {
    x = std::fabs(x);
    if (x < 1.0) return (1.5 * x - 2.5) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5;
    return 0.0;
}

double sinc(double x) {
    if (x == 0.0) return 1.0;
    x *= pi;
    return std::sin(x) / x;
}

double lanczos(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0; }

double filter(Interpolation interpolation, double x) {
    switch (interpolation) {
        case Interpolation::bilinear:
            return bilinear(x);
        case Interpolation::bicubic:
            return bicubic(x);
        default:
            return lanczos(x);
    }
}

std::int32_t to_fixed(double weight) {
    const double scaled = weight * (1 << weight_bits);
    return static_cast<std::int32_t>(scaled < 0 ? scaled - 0.5 : scaled + 0.5);
}

// `weights` has room for one output's.
void fill(Axis& axis, std::vector<double>& weights) {
    const double scale = static_cast<double>(axis.source) / axis.resized;
    const double filter_scale = std::max(scale, 1.0);
    const double inverse = 1.0 / filter_scale;
    const double support = support_of(axis.interpolation) * filter_scale;
    for (std::int32_t output = axis.begin; output < axis.end; ++output) {
        const double center = (output + 0.5) * scale;
        const std::int32_t first = std::max(static_cast<std::int32_t>(center - support + 0.5), 0);
        const std::int32_t taps = std::min(static_cast<std::int32_t>(center + support + 0.5), axis.source) - first;
        double sum = 0.0;
        for (std::int32_t tap = 0; tap < taps; ++tap) {
            weights[tap] = filter(axis.interpolation, (tap + first - center + 0.5) * inverse);
            sum += weights[tap];
        }
        const std::size_t index = static_cast<std::size_t>(output - axis.begin);
        axis.first[index] = first;
        axis.taps[index] = taps;
        for (std::int32_t tap = 0; tap < taps; ++tap) {
            axis.weights[index * axis.reach + tap] = to_fixed(sum != 0.0 ? weights[tap] / sum : weights[tap]);
        }
    }
}

}  // namespace

void update(Axis& axis, std::int32_t source, std::int32_t resized, std::int32_t begin, std::int32_t end,
            Interpolation interpolation) {
    if (axis.source == source && axis.resized == resized && axis.begin == begin && axis.end == end &&
        axis.interpolation == interpolation) {
        return;
    }
    axis.source = 0;  // of nothing, should memory run out below
    const double support = support_of(interpolation) * std::max(static_cast<double>(source) / resized, 1.0);
    const std::size_t outputs = static_cast<std::size_t>(end - begin);
    axis.reach = static_cast<std::size_t>(std::min(2.0 * std::ceil(support) + 1.0, static_cast<double>(source)));
    axis.first.resize(outputs);
    axis.taps.resize(outputs);
    axis.weights.resize(outputs * axis.reach);
    std::vector<double> weights(axis.reach);
    axis.resized = resized;
    axis.begin = begin;
    axis.end = end;
    axis.interpolation = interpolation;
    axis.source = source;
    fill(axis, weights);
}

std::vector<std::int32_t> nearest_samples(std::int32_t source, std::int32_t resized, std::int32_t begin,
                                          std::int32_t end) {
    std::vector<std::int32_t> samples(static_cast<std::size_t>(end - begin));
    const double scale = static_cast<double>(source) / resized;
    // Pillow adds up (ImagingScaleAffine in Geometry.c), and the sum's rounding decides between neighbours.
    double place = scale * 0.5;
    for (std::int32_t output = 0; output < end; ++output) {
        if (output >= begin) {
            samples[static_cast<std::size_t>(output - begin)] =
                place < source ? static_cast<std::int32_t>(place) : -1;
        }
        place += scale;
    }
    return samples;
}

}  // namespace clipedge
