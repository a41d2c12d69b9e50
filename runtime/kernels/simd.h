/* The inner loops, written once: simd.c includes this file for each width of vectors. VECTOR floats make a vector, NAME(x)
 * gives a function its own name, TARGET names the instructions it may use. */

typedef float NAME(vector) __attribute__((vector_size(4 * VECTOR)));
typedef float NAME(loose) __attribute__((vector_size(4 * VECTOR), aligned(4), may_alias)); /* as it lies in memory */
typedef int32_t NAME(mask) __attribute__((vector_size(4 * VECTOR)));
#define V NAME(vector)
#define M NAME(mask)
#define LOAD(p) NAME(load)(p)
#define INSIDE static inline __attribute__((always_inline)) TARGET

INSIDE V NAME(choose)(M where, V yes, V no) { return (V)(((M)yes & where) | ((M)no & ~where)); }

INSIDE V NAME(load)(const void *from) { return *(const NAME(loose) *)from; }

/* e to the x, to 2e-7 of it; beyond +-87 as at +-87, which no sigmoid or tanh can tell. */
INSIDE V NAME(exponential)(V x) {
    x = NAME(choose)(x < -87.0f, -87.0f - (V){0}, NAME(choose)(x > 87.0f, 87.0f - (V){0}, x));
    M n = __builtin_convertvector(x * 1.44269504f + NAME(choose)(x < 0.0f, -0.5f - (V){0}, 0.5f - (V){0}), M);
    V whole = __builtin_convertvector(n, V);
    V r = x - whole * 0.693359375f + whole * 2.12194440e-4f; /* log 2 in two parts, the first of few bits */
    V p = 1.0f + r * (1.0f + r * (0.5f + r * (1 / 6.0f + r * (1 / 24.0f + r * (1 / 120.0f + r * (1 / 720.0f))))));
    return p * (V)((n + 127) << 23);
}

INSIDE V NAME(sigmoid)(V x) { return NAME(choose)(x == x, 1.0f / (1.0f + NAME(exponential)(-x)), x); }

INSIDE V NAME(activate)(V x, const Activation kind, float alpha, float beta) {
    V zero = {0};
    switch (kind) {
    case RELU: return NAME(choose)(x < zero, zero, x);
    case CLIP: x = NAME(choose)(x < alpha, alpha - zero, x); return NAME(choose)(x > beta, beta - zero, x);
    case LEAKY_RELU: return NAME(choose)(x < zero, x * alpha, x);
    case HARD_SIGMOID:
    case HARD_SWISH: {
        V y = x * alpha + beta;
        y = NAME(choose)(y < zero, zero, NAME(choose)(y > 1.0f, 1.0f - zero, y));
        return kind == HARD_SWISH ? x * y : y;
    }
    case SIGMOID: return NAME(sigmoid)(x);
    case SILU: return x * NAME(sigmoid)(x);
    case TANH: return 2.0f * NAME(sigmoid)(2.0f * x) - 1.0f;
    default: return x;
    }
}

/* Sums of a tile of R rows of C vectors. Few vectors would wait for each addition to end: with them, U weights at a time
 * add to sums of their own. */
INSIDE void NAME(sum_rows)(const Rows *a, float *sums, const int R, const int C, const int U) {
    const int T = R * C;
    const Layer *layer = a->layer;
    const float *values = layer->values;
    const uint16_t *places = layer->places;
    const int64_t *offsets = a->offsets;
    const int64_t group_rows = layer->channels_out / layer->groups, down = a->down * 4;
#define EACH _Pragma("GCC unroll 16") for (int t = 0; t < T; t++)
#define AT(p, down) ((const char *)(p) + t / C * (down) + t % C * 4 * VECTOR)
#define ADD(total, i) { \
        const char *at = x + offsets[places[i]]; \
        V weight = values[i] - (V){0}; \
        EACH { \
            if (t && t % C == 0) at += down; \
            if (t % C == 0) __asm__("" : "+r"(at)); /* else compilers keep T addresses */ \
            total[t] += weight * LOAD(at + t % C * 4 * VECTOR); \
        } \
    }
    for (int64_t block = 0; block < layer->blocks; block++) {
        const int32_t *rows = layer->rows + block * layer->channels_out;
        int64_t group = a->first / group_rows, group_end = (group + 1) * group_rows;
        int ends = a->straight && block == layer->blocks - 1;
        for (int64_t row = a->first; row < a->last; row++) {
            if (row == group_end) group++, group_end += group_rows;
            float *sum = sums + (row - a->first) * T * VECTOR;
            int64_t i = rows[row], end = rows[row + 1];
            if (block && i == end && !ends) continue;
            const char *x = (const char *)(a->x + (group * layer->channels_in + block * layer->block) * a->channel);
            V total[4][MOST_VECTORS];
            EACH total[0][t] = block ? LOAD(sum + t * VECTOR) : layer->bias[row] - (V){0};
#pragma GCC unroll 4
            for (int u = 1; u < U; u++) EACH total[u][t] = (V){0};
            for (; i + U <= end; i += U)
#pragma GCC unroll 4
                for (int u = 0; u < U; u++) ADD(total[u], i + u)
            if (U > 1)
                for (; i < end; i++) ADD(total[0], i)
#pragma GCC unroll 4
            for (int u = 1; u < U; u++) EACH total[0][t] += total[u][t];
            if (!ends) {
                EACH *(NAME(loose) *)(sum + t * VECTOR) = total[0][t];
                continue;
            }
            if (a->residual) {
                const float *added = a->residual + row * a->residual_channel;
                EACH total[0][t] += LOAD(AT(added, 4 * a->residual_down));
            }
            if (layer->activation == RELU)
                EACH total[0][t] = NAME(activate)(total[0][t], RELU, 0, 0);
            else if (layer->activation == CLIP)
                EACH total[0][t] = NAME(activate)(total[0][t], CLIP, layer->alpha, layer->beta);
            sum = a->out + row * a->out_channel;
            EACH *(NAME(loose) *)AT(sum, 4 * a->out_down) = total[0][t];
        }
    }
#undef EACH
#undef AT
#undef ADD
}

#define SUM(R, C, U) \
    static TARGET void NAME(sum##R##x##C)(const Rows *a, float *sums) { NAME(sum_rows)(a, sums, R, C, U); }
SHAPES(SUM)
#undef SUM

/* Fewer floats than a vector, from and to memory that ends with them. */
INSIDE V NAME(load_some)(const float *from, int64_t count) {
    float part[VECTOR] = {0};
    for (int64_t i = 0; i < count; i++) part[i] = from[i];
    return LOAD(part);
}

INSIDE void NAME(store_some)(float *to, V x, int64_t count) {
    float part[VECTOR];
    *(NAME(loose) *)part = x;
    for (int64_t i = 0; i < count; i++) to[i] = part[i];
}

INSIDE void NAME(finish_rows)(const Rows *a, const float *sums, int64_t tile, const Piece *pieces, int64_t count,
                              const Activation kind) {
    float alpha = a->layer->alpha, beta = a->layer->beta;
    for (int64_t row = a->first; row < a->last; row++, sums += tile)
        for (int64_t k = 0; k < count; k++) {
            const float *from = sums + pieces[k].from;
            float *to = a->out + row * a->out_channel + pieces[k].to;
            const float *add = a->residual ? a->residual + row * a->residual_channel + pieces[k].residual : NULL;
            int64_t i = 0, n = pieces[k].count;
            for (; i + VECTOR <= n; i += VECTOR) {
                V x = LOAD(from + i);
                if (add) x += LOAD(add + i);
                *(NAME(loose) *)(to + i) = NAME(activate)(x, kind, alpha, beta);
            }
            if (i < n) {
                V x = LOAD(from + i); /* there is room after the sums */
                if (add) x += NAME(load_some)(add + i, n - i);
                NAME(store_some)(to + i, NAME(activate)(x, kind, alpha, beta), n - i);
            }
        }
}

static TARGET void NAME(finish)(const Rows *a, const float *sums, int64_t tile, const Piece *pieces, int64_t count) {
#define CASE(kind) case kind: NAME(finish_rows)(a, sums, tile, pieces, count, kind); break;
    switch (a->layer->activation) {
        CASE(NONE) CASE(RELU) CASE(CLIP) CASE(LEAKY_RELU) CASE(HARD_SIGMOID) CASE(HARD_SWISH) CASE(SIGMOID) CASE(SILU) CASE(TANH)
    default: break;
    }
#undef CASE
}

/* Every second of 2 VECTOR - 1 floats. */
INSIDE V NAME(evens)(const float *from) {
    V a = LOAD(from), b = LOAD(from + VECTOR - 1);
#if defined(__clang__)
    return __builtin_shufflevector(a, b, EVENS);
#else
    return __builtin_shuffle(a, b, (M){EVENS});
#endif
}

static TARGET void NAME(pick)(float *out, const float *in, int64_t count, int64_t step) {
    int64_t i = 0;
    if (step == 2 && count >= VECTOR)
        for (; i < count; i += VECTOR) {
            if (i > count - VECTOR) i = count - VECTOR; /* the last vector begins earlier rather than end behind */
            *(NAME(loose) *)(out + i) = NAME(evens)(in + 2 * i);
        }
    for (; i < count; i++) out[i] = in[i * step];
}

INSIDE void NAME(largest_run)(float *out, const float *const *taps, int64_t count, int64_t from, int64_t floats, const int64_t step) {
    int64_t i = 0;
    for (; i + VECTOR <= floats && step <= 2; i += VECTOR) {
        V most = LOAD(out + i);
        for (int64_t tap = 0; tap < count; tap++) {
            V x = step == 1 ? LOAD(taps[tap] + from + i) : NAME(evens)(taps[tap] + from + 2 * i);
            most = NAME(choose)(x > most, x, most);
        }
        *(NAME(loose) *)(out + i) = most;
    }
    for (; i < floats; i++) {
        float most = out[i];
        for (int64_t tap = 0; tap < count; tap++) {
            float x = taps[tap][from + i * step];
            most = x > most ? x : most;
        }
        out[i] = most;
    }
}

static TARGET void NAME(largest)(float *out, const float *const *taps, int64_t count, int64_t columns, int64_t images, int64_t step) {
    if (step == 1)
        NAME(largest_run)(out, taps, count, 0, columns * images, 1);
    else if (images == 1)
        NAME(largest_run)(out, taps, count, 0, columns, step);
    else
        for (int64_t x = 0; x < columns; x++) NAME(largest_run)(out + x * images, taps, count, x * step * images, images, 1);
}

static const Simd NAME(simd) = {
    TITLE, VECTOR,
#define TILE(R, C, U) {R, C, NAME(sum##R##x##C)},
    {SHAPES(TILE)},
#undef TILE
    NAME(finish), NAME(pick), NAME(largest),
};

#undef V
#undef M
#undef LOAD
#undef INSIDE
