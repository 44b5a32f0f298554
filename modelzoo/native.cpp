// What a decoding step spends its time on, for float32 on CPUs: `native.py` compiles and describes them.
//
// Sums run over the same numbers in the same order whatever the other rows are, so what a row gets does not depend on
// its company, to the bit.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16, MOST_ROWS = 12;  // 2 * 12 sums, two weights and a factor fit in 32 registers
#else
constexpr int LANES = 8, MOST_ROWS = 6;  // 12 sums of the 16 registers of AVX2
#endif
constexpr int PANEL = 2 * LANES, LINE = 16;  // floats in what memory hands over at once
constexpr int AHEAD = 64;                    // steps, where a panel is read once; else the next panel comes in time
constexpr int KEYS_AHEAD = 16;
typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

extern "C" int panel_width() { return PANEL; }

// ROWS rows of x (., inputs) times a panel (inputs, PANEL) of the weights: `width` columns of y (., outputs). Weights
// `ahead` steps on are asked for from memory meanwhile.
template <int ROWS>
static void panel_product(const float* x, const float* panel, const float* bias, float* y, int64_t inputs,
                          int64_t outputs, int64_t width, int64_t ahead) {
    Vector sums[ROWS][2] = {};
    for (int64_t i = 0; i < inputs; ++i) {
        for (int line = 0; line < PANEL; line += LINE) __builtin_prefetch(panel + (i + ahead) * PANEL + line, 0, 2);
        const Vector left = *(const Vector*)(panel + i * PANEL), right = *(const Vector*)(panel + i * PANEL + LANES);
#pragma GCC unroll 16
        for (int row = 0; row < ROWS; ++row) {
            const float factor = x[row * inputs + i];
            sums[row][0] += factor * left;
            sums[row][1] += factor * right;
        }
    }
    for (int row = 0; row < ROWS; ++row) {
        float sum[PANEL];
        memcpy(sum, sums[row], sizeof sum);
        for (int64_t column = 0; column < width; ++column)
            y[row * outputs + column] = sum[column] + (bias ? bias[column] : 0.0f);
    }
}

static void (*const panel_products[])(const float*, const float*, const float*, float*, int64_t, int64_t, int64_t,
                                      int64_t) = {
    nullptr, panel_product<1>, panel_product<2>, panel_product<3>, panel_product<4>, panel_product<5>, panel_product<6>,
#if defined(__AVX512F__)
    panel_product<7>, panel_product<8>, panel_product<9>, panel_product<10>, panel_product<11>, panel_product<12>,
#endif
};

// y (rows, outputs) = x (rows, inputs) times the weights, plus a bias (outputs) or none. Weights come as panels
// (inputs, PANEL), each read once from memory and used for all rows.
extern "C" void linear(const float* x, const float* panels, const float* bias, float* y, int64_t rows, int64_t inputs,
                       int64_t outputs, int threads) {
    const int64_t count = (outputs + PANEL - 1) / PANEL, groups = (rows + MOST_ROWS - 1) / MOST_ROWS;
    const int64_t ahead = groups > 1 ? inputs : AHEAD;
#pragma omp parallel for num_threads(threads)
    for (int64_t panel = 0; panel < count; ++panel) {
        const int64_t start = panel * PANEL, width = outputs - start < PANEL ? outputs - start : PANEL;
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = rows * group / groups, last = rows * (group + 1) / groups;
            panel_products[last - first](x + first * inputs, panels + start * inputs, bias ? bias + start : nullptr,
                                         y + first * outputs + start, inputs, outputs, width, ahead);
        }
    }
}

// --- The same with 8-bit weights: GROUP inputs share a scale, of an output's weights and of a row's inputs ---------

// The processor's instruction for it multiplies TOGETHER inputs (0..255) by as many weights of each of OUTPUTS outputs,
// which stand together, and adds them up: exactly, so that every processor gets the same.
#if defined(__AVX512VNNI__)
constexpr int OUTPUTS = 16, TOGETHER = 4;
typedef uint8_t Rounded;
typedef __m512i Weights;
static inline Weights load(const int8_t* weights) { return _mm512_loadu_si512(weights); }
#elif defined(__AVX2__)
constexpr int OUTPUTS = 8, TOGETHER = 2;
typedef int16_t Rounded;
typedef __m256i Weights;
static inline Weights load(const int8_t* weights) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)weights));
}
#else
constexpr int OUTPUTS = 8, TOGETHER = 2;
typedef int16_t Rounded;
typedef const int8_t* Weights;
static inline Weights load(const int8_t* weights) { return weights; }
#endif

constexpr int GROUP = 64, MOST_INT8_ROWS = 6;
typedef int32_t Integers __attribute__((vector_size(4 * OUTPUTS), aligned(4), may_alias));
typedef float Floats __attribute__((vector_size(4 * OUTPUTS), aligned(4), may_alias));

extern "C" int int8_outputs() { return OUTPUTS; }
extern "C" int int8_together() { return TOGETHER; }

static inline Integers add_products(Integers sums, const Rounded* inputs, Weights weights) {
#if defined(__AVX2__)
    int32_t together;
    memcpy(&together, inputs, sizeof together);
#endif
#if defined(__AVX512VNNI__)
    return (Integers)_mm512_dpbusd_epi32((__m512i)sums, _mm512_set1_epi32(together), weights);
#elif defined(__AVX2__)
    return sums + (Integers)_mm256_madd_epi16(_mm256_set1_epi32(together), weights);
#else
    for (int output = 0; output < OUTPUTS; ++output)
        for (int i = 0; i < TOGETHER; ++i) sums[output] += (int32_t)inputs[i] * weights[TOGETHER * output + i];
    return sums;
#endif
}

// Rows in 8 bits, as 128 + round(x / scale). One number that is none makes its scale, and so the result, none.
static void quantize(const float* x, int64_t inputs, int64_t groups, Rounded* rounded, float* scales) {
    for (int64_t group = 0; group < groups; ++group) {
        const int64_t start = group * GROUP, count = inputs - start < GROUP ? inputs - start : GROUP;
        float most = 0, broken = 0;
        for (int64_t i = 0; i < count; ++i) {
            const float size = std::fabs(x[start + i]);
            most = size > most ? size : most;
            broken += x[start + i] * 0;
        }
        const float factor = most > 0 ? 127 / most : 0;
        for (int64_t i = 0; i < count; ++i) rounded[start + i] = (Rounded)(x[start + i] * factor + 128.5f);
        for (int64_t i = count; i < GROUP; ++i) rounded[start + i] = 128;
        scales[group] = most / 127 + broken;
    }
}

struct Int8Weights {
    const int8_t* weights;       // (panels, groups, GROUP / TOGETHER, 2, OUTPUTS, TOGETHER)
    const float* scales;         // (panels, groups, 2, OUTPUTS)
    const int32_t* corrections;  // as scales: -128 times the sum of a group's weights
    const float* bias;           // (outputs) or none
    int64_t inputs, groups, outputs;
};

template <int ROWS>
static void int8_product(const Int8Weights& w, int64_t panel, const Rounded* x, const float* scales, float* y,
                         int64_t ahead) {
    Floats totals[ROWS][2] = {};
    for (int64_t group = 0; group < w.groups; ++group) {
        const int64_t place = panel * w.groups + group;
        const Integers* corrections = (const Integers*)(w.corrections + place * 2 * OUTPUTS);
        const Floats* factors = (const Floats*)(w.scales + place * 2 * OUTPUTS);
        Integers sums[ROWS][2];
        for (int row = 0; row < ROWS; ++row) sums[row][0] = corrections[0], sums[row][1] = corrections[1];
        for (int i = 0; i < GROUP; i += TOGETHER) {
            const int8_t* weights = w.weights + (place * GROUP + i) * 2 * OUTPUTS;
            __builtin_prefetch(weights + ahead);
            const Weights left = load(weights), right = load(weights + TOGETHER * OUTPUTS);
#pragma GCC unroll 8
            for (int row = 0; row < ROWS; ++row) {
                const Rounded* inputs = x + (row * w.groups + group) * GROUP + i;
                sums[row][0] = add_products(sums[row][0], inputs, left);
                sums[row][1] = add_products(sums[row][1], inputs, right);
            }
        }
        for (int row = 0; row < ROWS; ++row)
            for (int half = 0; half < 2; ++half)
                totals[row][half] += __builtin_convertvector(sums[row][half], Floats) * factors[half] *
                                     scales[row * w.groups + group];
    }
    const int64_t start = panel * 2 * OUTPUTS;
    const int64_t width = w.outputs - start < 2 * OUTPUTS ? w.outputs - start : 2 * OUTPUTS;
    for (int row = 0; row < ROWS; ++row) {
        float total[2 * OUTPUTS];
        memcpy(total, totals[row], sizeof total);
        for (int64_t o = 0; o < width; ++o)
            y[row * w.outputs + start + o] = total[o] + (w.bias ? w.bias[start + o] : 0.0f);
    }
}

// y (rows, outputs) = x (rows, inputs) times the weights, plus the bias.
extern "C" void linear_int8(const float* x, const Int8Weights* w, float* y, int64_t rows, int threads) {
    std::vector<Rounded> rounded(rows * w->groups * GROUP);
    std::vector<float> scales(rows * w->groups);
    const int64_t panels = (w->outputs + 2 * OUTPUTS - 1) / (2 * OUTPUTS);
    const int64_t chunks = (rows + MOST_INT8_ROWS - 1) / MOST_INT8_ROWS;
    const int64_t ahead = 2 * OUTPUTS * (chunks > 1 ? w->groups * GROUP : 2 * AHEAD);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for
        for (int64_t row = 0; row < rows; ++row)
            quantize(x + row * w->inputs, w->inputs, w->groups, &rounded[row * w->groups * GROUP],
                     &scales[row * w->groups]);
#pragma omp for
        for (int64_t panel = 0; panel < panels; ++panel)
            for (int64_t chunk = 0; chunk < chunks; ++chunk) {
                const int64_t first = rows * chunk / chunks, last = rows * (chunk + 1) / chunks;
                const Rounded* inputs = &rounded[first * w->groups * GROUP];
                const float* factors = &scales[first * w->groups];
                float* outputs = y + first * w->outputs;
                switch (last - first) {
                    case 1: int8_product<1>(*w, panel, inputs, factors, outputs, ahead); break;
                    case 2: int8_product<2>(*w, panel, inputs, factors, outputs, ahead); break;
                    case 3: int8_product<3>(*w, panel, inputs, factors, outputs, ahead); break;
                    case 4: int8_product<4>(*w, panel, inputs, factors, outputs, ahead); break;
                    case 5: int8_product<5>(*w, panel, inputs, factors, outputs, ahead); break;
                    default: int8_product<6>(*w, panel, inputs, factors, outputs, ahead);
                }
            }
    }
}

// --- What stands between the products ----------------------------------------------------------------------------

// y = x / sqrt(mean(x^2) + epsilon) * weight for each row of x (rows, width).
extern "C" void rms_norm(const float* x, const float* weight, float* y, int64_t rows, int64_t width, float epsilon,
                         int threads) {
#pragma omp parallel for num_threads(threads) if (rows > 32)
    for (int64_t row = 0; row < rows; ++row) {
        const float* from = x + row * width;
        float* to = y + row * width;
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (int64_t i = 0; i < width; ++i) squares += from[i] * from[i];
        const float factor = 1 / std::sqrt(squares / width + epsilon);
        for (int64_t i = 0; i < width; ++i) to[i] = from[i] * factor * weight[i];
    }
}

// e^x, within 2 units in the last place (Cephes' expf); written out so that compilers make vectors of it.
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float power = __builtin_floorf(x * 1.44269504f + 0.5f);
    const float r = (x - power * 0.693359375f) + power * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const int32_t bits = ((int32_t)power + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

// y (rows, heads, width): each pair (i, i + width / 2) of x turned by an angle; cos and sin (rows, width) as in
// `transformer.py`. A row of x has `stride` floats.
extern "C" void rotate(const float* x, const float* cos, const float* sin, float* y, int64_t rows, int64_t heads,
                       int64_t width, int64_t stride, int threads) {
    const int64_t half = width / 2;
#pragma omp parallel for num_threads(threads) if (rows > 32)
    for (int64_t row = 0; row < rows; ++row)
        for (int64_t head = 0; head < heads; ++head) {
            const float *from = x + row * stride + head * width, *c = cos + row * width, *s = sin + row * width;
            float* to = y + (row * heads + head) * width;
            for (int64_t i = 0; i < half; ++i) {
                to[i] = from[i] * c[i] + from[i + half] * s[i];
                to[i + half] = from[i + half] * c[i + half] + from[i] * s[i + half];
            }
        }
}

// y = gate / (1 + e^-gate) * up for each row of (rows, 2 * width), which holds both.
extern "C" void swiglu(const float* gates_ups, float* y, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < rows; ++row) {
        const float *gate = gates_ups + row * 2 * width, *up = gate + width;
        for (int64_t i = 0; i < width; ++i) y[row * width + i] = gate[i] / (1 + exponential(-gate[i])) * up[i];
    }
}

static inline float sum_of(Vector lanes) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)lanes);
#elif defined(__AVX2__)
    __m128 sums = _mm_add_ps(_mm256_castps256_ps128((__m256)lanes), _mm256_extractf128_ps((__m256)lanes, 1));
    sums = _mm_add_ps(sums, _mm_movehl_ps(sums, sums));
    return _mm_cvtss_f32(_mm_add_ss(sums, _mm_movehdup_ps(sums)));
#else
    float sum = 0;
    for (int lane = 0; lane < LANES; ++lane) sum += lanes[lane];
    return sum;
#endif
}

// scores (HEADS, columns): of the first KEYS columns, `scale` times each query (HEADS, WIDTH) times each key (KEYS, WIDTH).
template <int WIDTH, int HEADS, int KEYS>
static inline void score(const float* queries, const float* keys, float* scores, int64_t columns, float scale) {
    Vector products[HEADS][KEYS] = {};
#pragma GCC unroll 16
    for (int e = 0; e < WIDTH; e += LANES)
#pragma GCC unroll 4
        for (int key = 0; key < KEYS; ++key) {
            const Vector part = *(const Vector*)(keys + key * WIDTH + e);
#pragma GCC unroll 4
            for (int head = 0; head < HEADS; ++head)
                products[head][key] += *(const Vector*)(queries + head * WIDTH + e) * part;
        }
#pragma GCC unroll 4
    for (int head = 0; head < HEADS; ++head)
#pragma GCC unroll 4
        for (int key = 0; key < KEYS; ++key) scores[head * columns + key] = scale * sum_of(products[head][key]);
}

// Later keys, and the values that are read after them, are asked for from memory meanwhile.
template <int WIDTH, int HEADS>
static void score_all(const float* queries, const float* keys, const float* values, int64_t count, float* scores,
                      int64_t columns, float scale) {
    int64_t n = 0;
    for (; n + 2 <= count; n += 2) {
        for (int i = 0; i < 2 * WIDTH; i += LINE) {
            __builtin_prefetch(keys + (n + KEYS_AHEAD) * WIDTH + i, 0, 2);
            __builtin_prefetch(values + n * WIDTH + i, 0, 2);
        }
        score<WIDTH, HEADS, 2>(queries, keys + n * WIDTH, scores + n, columns, scale);
    }
    if (n < count) score<WIDTH, HEADS, 1>(queries, keys + n * WIDTH, scores + n, columns, scale);
}

// totals (HEADS, WIDTH) += weights (HEADS, columns), of the first `count` columns, times values (count, WIDTH).
template <int WIDTH, int HEADS>
static void mix(const float* weights, int64_t columns, const float* values, int64_t count, float* totals) {
    constexpr int VECTORS = WIDTH / LANES, TOGETHER = VECTORS % 4 == 0 ? 4 : VECTORS % 2 == 0 ? 2 : 1;
    for (int start = 0; start < WIDTH; start += TOGETHER * LANES) {
        Vector sums[HEADS][TOGETHER];
#pragma GCC unroll 4
        for (int head = 0; head < HEADS; ++head) memcpy(sums[head], totals + head * WIDTH + start, sizeof sums[head]);
        for (int64_t n = 0; n < count; ++n) {
#pragma GCC unroll 4
            for (int part = 0; part < TOGETHER; ++part) {
                const Vector value = *(const Vector*)(values + n * WIDTH + start + part * LANES);
#pragma GCC unroll 4
                for (int head = 0; head < HEADS; ++head) sums[head][part] += weights[head * columns + n] * value;
            }
        }
#pragma GCC unroll 4
        for (int head = 0; head < HEADS; ++head) memcpy(totals + head * WIDTH + start, sums[head], sizeof sums[head]);
    }
}

// Shapes as in `decoding.py`; strides count floats from one row to the next.
struct Step {
    const float *queries, *keys, *values;                  // (B, H, E), (B, G, E), (B, G, E): of the new tokens
    int64_t query_stride, key_stride, value_stride;
    const float *prompt_keys, *prompt_values;              // (S, G, P, E)
    float *own_keys, *own_values;                          // (B, G, R, E)
    const int64_t *prompt_lengths, *prompt_of, *said;      // (S), (B), (B)
    float* mixed;                                          // (B, H, E)
    int64_t rows, heads, groups, prompt_columns, own_columns;
    float scale;
};

// Some of the query heads of one row that share a key-value head. `weights` has room for all columns of each.
template <int WIDTH, int HEADS>
static void attend_heads(const Step& step, int64_t row, int64_t group, int64_t head, float* weights) {
    const int64_t prompt = step.prompt_of[row], before = step.prompt_lengths[prompt], own = step.said[row] + 1;
    const int64_t prompt_start = (prompt * step.groups + group) * step.prompt_columns * WIDTH;
    const int64_t own_start = (row * step.groups + group) * step.own_columns * WIDTH, all = before + own;
    const float* queries = step.queries + row * step.query_stride + head * WIDTH;
    score_all<WIDTH, HEADS>(queries, step.prompt_keys + prompt_start, step.prompt_values + prompt_start, before, weights,
                            all, step.scale);
    score_all<WIDTH, HEADS>(queries, step.own_keys + own_start, step.own_values + own_start, own, weights + before, all,
                            step.scale);

    float sums[HEADS] = {};
    for (int h = 0; h < HEADS; ++h) {
        float* scores = weights + h * all;
        float most = scores[0], sum = 0;
        for (int64_t n = 1; n < all; ++n) most = scores[n] > most ? scores[n] : most;
#pragma omp simd reduction(+ : sum)
        for (int64_t n = 0; n < all; ++n) sum += scores[n] = exponential(scores[n] - most);
        sums[h] = sum;
    }

    float totals[HEADS * WIDTH] = {};
    mix<WIDTH, HEADS>(weights, all, step.prompt_values + prompt_start, before, totals);
    mix<WIDTH, HEADS>(weights + before, all, step.own_values + own_start, own, totals);
    float* mixed = step.mixed + (row * step.heads + head) * WIDTH;
    for (int h = 0; h < HEADS; ++h)
        for (int e = 0; e < WIDTH; ++e) mixed[h * WIDTH + e] = totals[h * WIDTH + e] / sums[h];
}

// The query heads of one row that share a key-value head, up to three at a time: they read the same memory.
template <int WIDTH>
static void attend_group(const Step& step, int64_t row, int64_t group, float* weights) {
    const int64_t newest = ((row * step.groups + group) * step.own_columns + step.said[row]) * WIDTH;
    memcpy(step.own_keys + newest, step.keys + row * step.key_stride + group * WIDTH, WIDTH * sizeof(float));
    memcpy(step.own_values + newest, step.values + row * step.value_stride + group * WIDTH, WIDTH * sizeof(float));
    const int64_t sharing = step.heads / step.groups;
    int64_t head = group * sharing, left = sharing;
    for (; left >= 3; left -= 3, head += 3) attend_heads<WIDTH, 3>(step, row, group, head, weights);
    if (left == 2) attend_heads<WIDTH, 2>(step, row, group, head, weights);
    if (left == 1) attend_heads<WIDTH, 1>(step, row, group, head, weights);
}

template <int WIDTH>
static void attend_all(const Step& step, int threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> weights(3 * (step.prompt_columns + step.own_columns));
#pragma omp for
        for (int64_t pair = 0; pair < step.rows * step.groups; ++pair)
            attend_group<WIDTH>(step, pair / step.groups, pair % step.groups, weights.data());
    }
}

// Remembers the new keys and values and attends to the prompt and to what each row said.
extern "C" void attend(const Step* step, int64_t width, int threads) {
    switch (width) {
        case 16: return attend_all<16>(*step, threads);
        case 32: return attend_all<32>(*step, threads);
        case 64: return attend_all<64>(*step, threads);
        case 80: return attend_all<80>(*step, threads);
        case 96: return attend_all<96>(*step, threads);
        case 128: return attend_all<128>(*step, threads);
    }
}
