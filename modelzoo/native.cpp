// The two parts of a decoding step that take its time, for float32 on CPUs: `native.py` compiles and describes them.
//
// Sums run over the same numbers in the same order whatever the other rows are, so what a row gets does not depend on
// its company, to the bit.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#if defined(__AVX512VNNI__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
constexpr int LANES = 16, MOST_ROWS = 12;  // 2 * 12 sums, two weights and a factor fit in 32 registers
#else
constexpr int LANES = 8, MOST_ROWS = 4;
#endif
constexpr int PANEL = 2 * LANES;
typedef float Vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

extern "C" int panel_width() { return PANEL; }

// ROWS rows of x (., inputs) times a panel (inputs, PANEL) of the weights: `width` columns of y (., outputs).
template <int ROWS>
static void panel_product(const float* x, const float* panel, const float* bias, float* y, int64_t inputs,
                          int64_t outputs, int64_t width) {
    Vector sums[ROWS][2] = {};
    for (int64_t i = 0; i < inputs; ++i) {
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

static void (*const panel_products[])(const float*, const float*, const float*, float*, int64_t, int64_t, int64_t) = {
    nullptr, panel_product<1>, panel_product<2>, panel_product<3>, panel_product<4>,
#if defined(__AVX512F__)
    panel_product<5>, panel_product<6>, panel_product<7>, panel_product<8>, panel_product<9>, panel_product<10>,
    panel_product<11>, panel_product<12>,
#endif
};

// y (rows, outputs) = x (rows, inputs) times the weights, plus a bias (outputs) or none. Weights come as panels
// (inputs, PANEL), each read once from memory and used for all rows.
extern "C" void linear(const float* x, const float* panels, const float* bias, float* y, int64_t rows, int64_t inputs,
                       int64_t outputs, int threads) {
    const int64_t count = (outputs + PANEL - 1) / PANEL, groups = (rows + MOST_ROWS - 1) / MOST_ROWS;
#pragma omp parallel for num_threads(threads)
    for (int64_t panel = 0; panel < count; ++panel) {
        const int64_t start = panel * PANEL, width = outputs - start < PANEL ? outputs - start : PANEL;
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t first = rows * group / groups, last = rows * (group + 1) / groups;
            panel_products[last - first](x + first * inputs, panels + start * inputs, bias ? bias + start : nullptr,
                                         y + first * outputs + start, inputs, outputs, width);
        }
    }
}

// --- The same with 8-bit weights: GROUP inputs share a scale, of an output's weights and of a row's inputs ---------

constexpr int GROUP = 64, OUTPUTS = 16, MOST_INT8_ROWS = 6;
typedef int32_t Integers __attribute__((vector_size(4 * OUTPUTS), aligned(4), may_alias));
typedef float Floats __attribute__((vector_size(4 * OUTPUTS), aligned(4), may_alias));

// Four inputs in 0..255 times four weights of each of 16 outputs, which stand together.
static inline Integers add_products(Integers sums, const uint8_t* inputs, const int8_t* weights) {
#if defined(__AVX512VNNI__)
    int32_t four;
    memcpy(&four, inputs, sizeof four);
    return (Integers)_mm512_dpbusd_epi32((__m512i)sums, _mm512_set1_epi32(four), _mm512_loadu_si512(weights));
#else
    for (int output = 0; output < OUTPUTS; ++output)
        for (int i = 0; i < 4; ++i) sums[output] += (int32_t)inputs[i] * weights[4 * output + i];
    return sums;
#endif
}

// Rows in 8 bits, as 128 + round(x / scale). One number that is none makes its scale, and so the result, none.
static void quantize(const float* x, int64_t inputs, int64_t groups, uint8_t* rounded, float* scales) {
    for (int64_t group = 0; group < groups; ++group) {
        const int64_t start = group * GROUP, count = inputs - start < GROUP ? inputs - start : GROUP;
        float most = 0, broken = 0;
        for (int64_t i = 0; i < count; ++i) {
            const float size = std::fabs(x[start + i]);
            most = size > most ? size : most;
            broken += x[start + i] * 0;
        }
        const float factor = most > 0 ? 127 / most : 0;
        for (int64_t i = 0; i < count; ++i) rounded[start + i] = (uint8_t)(x[start + i] * factor + 128.5f);
        for (int64_t i = count; i < GROUP; ++i) rounded[start + i] = 128;
        scales[group] = most / 127 + broken;
    }
}

struct Int8Weights {
    const int8_t* weights;       // (panels, groups, GROUP / 4, 2, OUTPUTS, 4)
    const float* scales;         // (panels, groups, 2, OUTPUTS)
    const int32_t* corrections;  // as scales: -128 times the sum of a group's weights
    const float* bias;           // (outputs) or none
    int64_t inputs, groups, outputs;
};

template <int ROWS>
static void int8_product(const Int8Weights& w, int64_t panel, const uint8_t* x, const float* scales, float* y) {
    Floats totals[ROWS][2] = {};
    for (int64_t group = 0; group < w.groups; ++group) {
        const int64_t place = panel * w.groups + group;
        const Integers* corrections = (const Integers*)(w.corrections + place * 2 * OUTPUTS);
        const Floats* factors = (const Floats*)(w.scales + place * 2 * OUTPUTS);
        Integers sums[ROWS][2];
        for (int row = 0; row < ROWS; ++row) sums[row][0] = corrections[0], sums[row][1] = corrections[1];
        for (int four = 0; four < GROUP / 4; ++four) {
            const int8_t* weights = w.weights + (place * GROUP + four * 4) * 2 * OUTPUTS;
#pragma GCC unroll 8
            for (int row = 0; row < ROWS; ++row) {
                const uint8_t* inputs = x + (row * w.groups + group) * GROUP + four * 4;
                sums[row][0] = add_products(sums[row][0], inputs, weights);
                sums[row][1] = add_products(sums[row][1], inputs, weights + 4 * OUTPUTS);
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
    std::vector<uint8_t> rounded(rows * w->groups * GROUP);
    std::vector<float> scales(rows * w->groups);
    const int64_t panels = (w->outputs + 2 * OUTPUTS - 1) / (2 * OUTPUTS);
    const int64_t chunks = (rows + MOST_INT8_ROWS - 1) / MOST_INT8_ROWS;
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
                const uint8_t* inputs = &rounded[first * w->groups * GROUP];
                const float* factors = &scales[first * w->groups];
                float* outputs = y + first * w->outputs;
                switch (last - first) {
                    case 1: int8_product<1>(*w, panel, inputs, factors, outputs); break;
                    case 2: int8_product<2>(*w, panel, inputs, factors, outputs); break;
                    case 3: int8_product<3>(*w, panel, inputs, factors, outputs); break;
                    case 4: int8_product<4>(*w, panel, inputs, factors, outputs); break;
                    case 5: int8_product<5>(*w, panel, inputs, factors, outputs); break;
                    default: int8_product<6>(*w, panel, inputs, factors, outputs);
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

// y = gate / (1 + e^-gate) * up for each row of (rows, 2 * width), which holds both.
extern "C" void swiglu(const float* gates_ups, float* y, int64_t rows, int64_t width, int threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t row = 0; row < rows; ++row) {
        const float *gate = gates_ups + row * 2 * width, *up = gate + width;
        for (int64_t i = 0; i < width; ++i) y[row * width + i] = gate[i] / (1 + exponential(-gate[i])) * up[i];
    }
}

template <int WIDTH>
static float dot(const float* a, const float* b) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int e = 0; e < WIDTH; ++e) sum += a[e] * b[e];
    return sum;
}

// total += factors[0] * rows[0] + factors[1] * rows[1] + ...
template <int WIDTH>
static void add_weighted(float* total, const float* rows, const float* factors, int64_t count) {
    for (int64_t n = 0; n < count; ++n)
#pragma omp simd
        for (int e = 0; e < WIDTH; ++e) total[e] += factors[n] * rows[n * WIDTH + e];
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

// The query heads of one row that share a key-value head. `weights` has room for all columns.
template <int WIDTH>
static void attend_group(const Step& step, int64_t row, int64_t group, float* weights) {
    const int64_t prompt = step.prompt_of[row], before = step.prompt_lengths[prompt], own = step.said[row] + 1;
    const int64_t prompt_start = (prompt * step.groups + group) * step.prompt_columns * WIDTH;
    const int64_t own_start = (row * step.groups + group) * step.own_columns * WIDTH;
    const int64_t newest = own_start + (own - 1) * WIDTH;
    memcpy(step.own_keys + newest, step.keys + row * step.key_stride + group * WIDTH, WIDTH * sizeof(float));
    memcpy(step.own_values + newest, step.values + row * step.value_stride + group * WIDTH, WIDTH * sizeof(float));

    const int64_t sharing = step.heads / step.groups, all = before + own;
    for (int64_t head = group * sharing; head < (group + 1) * sharing; ++head) {
        const float* query = step.queries + row * step.query_stride + head * WIDTH;
        for (int64_t n = 0; n < before; ++n)
            weights[n] = step.scale * dot<WIDTH>(query, step.prompt_keys + prompt_start + n * WIDTH);
        for (int64_t n = 0; n < own; ++n)
            weights[before + n] = step.scale * dot<WIDTH>(query, step.own_keys + own_start + n * WIDTH);

        float most = weights[0], sum = 0;
        for (int64_t n = 1; n < all; ++n) most = weights[n] > most ? weights[n] : most;
#pragma omp simd reduction(+ : sum)
        for (int64_t n = 0; n < all; ++n) sum += weights[n] = exponential(weights[n] - most);

        float total[WIDTH] = {};
        add_weighted<WIDTH>(total, step.prompt_values + prompt_start, weights, before);
        add_weighted<WIDTH>(total, step.own_values + own_start, weights + before, own);
        float* mixed = step.mixed + (row * step.heads + head) * WIDTH;
        for (int e = 0; e < WIDTH; ++e) mixed[e] = total[e] / sum;
    }
}

template <int WIDTH>
static void attend_all(const Step& step, int threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<float> weights(step.prompt_columns + step.own_columns);
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
