// y = relu(batch_norm(x) [+ shortcut]) in training mode, forward and backward, in bfloat16 on one thread.
//
// torch does this as three operations, each of which reads and writes the whole activation; here every pass
// does all that its numbers are needed for: 2 reads and 1 write forward, 4 reads and 1 write backward, and
// one more of each with a shortcut. `longtail build-extension` compiles it; fused_batchnorm.py calls it.
//
// Activations are NHWC (channels_last), so n values are n / C rows of C channels. C divides 64 and 64 divides
// n: work goes by periods of 64 values, four vectors of 16, in which a channel always has the same places.
// Numbers between are float32, sums over a block float32 and over blocks double. Every product that is added
// is an explicit fused multiply-add and the compiler forms no others, so that all compilers give the same
// bits. bfloat16 numbers below 1.2e-38 (denormal) become 0 where they are written.

#include <immintrin.h>

#include <cmath>
#include <cstdint>

namespace {

typedef uint16_t Half;  // the bits of a bfloat16
typedef __m512 Vector;  // 16 float32
constexpr int VECTORS = 4, LANES = 16, PERIOD = VECTORS * LANES;
constexpr int64_t BLOCK = 256;  // periods whose sums stay in float32

inline Vector load(const Half* from) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

inline void store(Half* to, Vector values) {  // rounds to the nearest, ties to even
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(values)));
}

// What of a gradient gets through ReLU; a NaN of its input lets it pass, as in torch.
inline Vector through(Vector input, Vector gradient) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(input, _mm512_setzero_ps(), _CMP_NLE_UQ), gradient);
}

// A number of each channel at all its places in a period.
struct Spread {
    Vector at[VECTORS];
    Spread(const float* of_channel, int64_t channels) {
        alignas(64) float places[PERIOD];
        for (int i = 0; i < PERIOD; i++) places[i] = of_channel[i % channels];
        for (int v = 0; v < VECTORS; v++) at[v] = _mm512_load_ps(places + LANES * v);
    }
};

// Two sums a channel: first and second of what `value` gives, which is called with every vector's place.
struct Sums {
    double first[PERIOD] = {}, second[PERIOD] = {};

    template <typename Value>
    Sums(int64_t n, int64_t channels, Value value) {
        const int64_t periods = n / PERIOD;
        for (int64_t begin = 0; begin < periods; begin += BLOCK) {
            const int64_t end = begin + BLOCK < periods ? begin + BLOCK : periods;
            Vector one[VECTORS], other[VECTORS];
            for (int v = 0; v < VECTORS; v++) one[v] = other[v] = _mm512_setzero_ps();
            for (int64_t period = begin; period < end; period++)
                for (int v = 0; v < VECTORS; v++) value(period * PERIOD + LANES * v, v, one[v], other[v]);
            add(one, first, channels);
            add(other, second, channels);
        }
    }

    static void add(const Vector* vectors, double* sums, int64_t channels) {
        alignas(64) float places[PERIOD];
        for (int v = 0; v < VECTORS; v++) _mm512_store_ps(places + LANES * v, vectors[v]);
        for (int i = 0; i < PERIOD; i++) sums[i % channels] += places[i];
    }
};

// Calls `value` with every vector's place, from the end: what a pass before has read last is in the cache.
template <typename Value>
inline void backwards(int64_t n, Value value) {
    for (int64_t period = n - PERIOD; period >= 0; period -= PERIOD)
        for (int v = 0; v < VECTORS; v++) value(period + LANES * v, v);
}

}  // namespace

extern "C" {

int supported() { return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bf16"); }

// Writes y (n) and the statistics (3, C): mean, 1 / standard deviation, and weight / standard deviation.
// Running statistics move as torch moves them. The sums are of x - first row, whose squares are small where
// the mean is large.
void forward(const Half* x, const Half* shortcut, Half* y, int64_t n, int64_t channels, const float* weight,
             const float* bias, float* running_mean, float* running_var, double momentum, double epsilon,
             float* statistics) {
    float first_row[PERIOD];
    for (int64_t c = 0; c < channels; c++) {
        const uint32_t bits = uint32_t(x[c]) << 16;
        __builtin_memcpy(first_row + c, &bits, sizeof bits);
    }
    const Spread origin(first_row, channels);
    const Sums sums(n, channels, [&](int64_t place, int v, Vector& sum, Vector& squares) {
        const Vector apart = _mm512_sub_ps(load(x + place), origin.at[v]);
        sum = _mm512_add_ps(sum, apart);
        squares = _mm512_fmadd_ps(apart, apart, squares);
    });
    const double rows = double(n / channels);
    float *mean = statistics, *inverse = statistics + channels, *slope = statistics + 2 * channels;
    for (int64_t c = 0; c < channels; c++) {
        const double moved = sums.first[c] / rows, batch_mean = moved + first_row[c];
        double variance = sums.second[c] / rows - moved * moved;
        if (variance < 0) variance = 0;  // by rounding; NaN stays
        const double inverted = 1 / std::sqrt(variance + epsilon);
        mean[c] = float(batch_mean), inverse[c] = float(inverted), slope[c] = float(inverted * weight[c]);
        running_mean[c] = float((1 - momentum) * running_mean[c] + momentum * batch_mean);
        running_var[c] = float((1 - momentum) * running_var[c] + momentum * variance * rows / (rows - 1));
    }
    const Spread m(mean, channels), a(slope, channels), b(bias, channels);
    const Vector zero = _mm512_setzero_ps();
    const auto normalised = [&](int64_t place, int v) {
        return _mm512_fmadd_ps(a.at[v], _mm512_sub_ps(load(x + place), m.at[v]), b.at[v]);
    };
    // max(0, NaN) of this instruction is its second operand, NaN
    if (shortcut)
        backwards(n, [&](int64_t place, int v) {
            const Vector sum = _mm512_add_ps(normalised(place, v), load(shortcut + place));
            store(y + place, _mm512_max_ps(zero, sum));
        });
    else
        backwards(n, [&](int64_t place, int v) { store(y + place, _mm512_max_ps(zero, normalised(place, v))); });
}

// Writes the gradients of x (n), weight and bias (C) by that of y; y and the shortcut's gradient (n), which is
// the one that gets through ReLU, are null where there is no shortcut. With g that gradient, over rows:
//   dx = weight / std (g - mean(g) - (x - mean) / std^2 mean(g (x - mean)))
// Without a shortcut ReLU's input is computed again from x, which is read anyway.
void backward(const Half* dy, const Half* x, const Half* y, Half* dshortcut, Half* dx, int64_t n,
              int64_t channels, const float* bias, const float* statistics, float* dweight, float* dbias) {
    const float *inverse = statistics + channels, *slope = statistics + 2 * channels;
    const Spread m(statistics, channels), a(slope, channels), b(bias, channels);
    const auto apart = [&](int64_t place, int v) { return _mm512_sub_ps(load(x + place), m.at[v]); };
    const auto input = [&](Vector apart, int v) { return _mm512_fmadd_ps(a.at[v], apart, b.at[v]); };
    const auto with_shortcut = [&](int64_t place, int v, Vector& sum, Vector& products) {
        const Vector g = through(load(y + place), load(dy + place));
        store(dshortcut + place, g);
        sum = _mm512_add_ps(sum, g);
        products = _mm512_fmadd_ps(g, apart(place, v), products);
    };
    const auto alone = [&](int64_t place, int v, Vector& sum, Vector& products) {
        const Vector c = apart(place, v), g = through(input(c, v), load(dy + place));
        sum = _mm512_add_ps(sum, g);
        products = _mm512_fmadd_ps(g, c, products);
    };
    const Sums sums = y ? Sums(n, channels, with_shortcut) : Sums(n, channels, alone);
    const double rows = double(n / channels);
    float along[PERIOD], constant[PERIOD];  // dx = slope g + along (x - mean) + constant
    for (int64_t c = 0; c < channels; c++) {
        dbias[c] = float(sums.first[c]);
        dweight[c] = float(sums.second[c] * inverse[c]);
        along[c] = float(-double(slope[c]) * inverse[c] * inverse[c] * sums.second[c] / rows);
        constant[c] = float(-double(slope[c]) * sums.first[c] / rows);
    }
    const Spread p(along, channels), r(constant, channels);
    const auto gradient = [&](Vector g, Vector c, int v) {
        return _mm512_fmadd_ps(a.at[v], g, _mm512_fmadd_ps(p.at[v], c, r.at[v]));
    };
    if (y)
        backwards(n, [&](int64_t place, int v) {
            store(dx + place, gradient(load(dshortcut + place), apart(place, v), v));
        });
    else
        backwards(n, [&](int64_t place, int v) {
            const Vector c = apart(place, v);
            store(dx + place, gradient(through(input(c, v), load(dy + place)), c, v));
        });
}
}
