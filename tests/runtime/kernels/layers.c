/* The kernels without onnxruntime: random layers and pools against plain loops in double, then damaged ones, which must be
 * refused or run inside their buffers. Every buffer is as large as it must be and no larger, so that a sanitizer sees the
 * first byte beyond. usage: layers SEED COUNT [tell] */
#include "layer.c"

#include <stdio.h>
#include <stdlib.h>

enum { LARGEST_BUFFER = 1 << 22 };

static uint64_t state;

static int64_t draw(int64_t first, int64_t last) {
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return first + (int64_t)((state >> 11) % (uint64_t)(last - first + 1));
}

static float draw_float(void) { return (float)draw(-1000, 1000) / 500; }

static void *exactly(int64_t bytes) {
    void *memory = malloc((size_t)larger(bytes, 1));
    if (!memory) abort();
    return memory;
}

static void *allocate(void *self, size_t bytes) { (void)self; return bytes > 4 * LARGEST_BUFFER ? NULL : exactly((int64_t)bytes); }
static void release(void *self, void *memory) { (void)self; free(memory); }

/* Last things first: what is done side by side must not depend on the order. */
static void parallel(void *self, void (*work)(void *, size_t), size_t count, void *argument) {
    (void)self;
    while (count) work(argument, --count);
}

static const Host host = {NULL, allocate, release, parallel};

/* What a layer is made of: its dense weights [output, input of its group, kernel row, kernel column], and its own arrays. */
typedef struct {
    Layer layer;
    float *dense, *values, *bias;
    uint16_t *places;
    int32_t *rows;
    int64_t weights, row_count;
} Made;

static void compress(Made *made) {
    Layer *layer = &made->layer;
    int64_t taps = layer->kernel[0] * layer->kernel[1], blocks = divide_up(layer->channels_in, layer->block), at = 0;
    made->row_count = blocks * layer->channels_out + 1;
    made->values = exactly(made->weights * 4), made->places = exactly(made->weights * 2);
    made->rows = exactly(made->row_count * 4);
    for (int64_t row = 0; row < made->row_count - 1; row++) {
        int64_t block = row / layer->channels_out, output = row % layer->channels_out;
        int64_t end = smaller((block + 1) * layer->block, layer->channels_in) * taps;
        made->rows[row] = (int32_t)at;
        for (int64_t i = block * layer->block * taps; i < end; i++) {
            float weight = made->dense[output * layer->channels_in * taps + i];
            if (weight == 0) continue;
            made->values[at] = weight, made->places[at++] = (uint16_t)(i - block * layer->block * taps);
        }
    }
    made->rows[made->row_count - 1] = (int32_t)at;
    layer->values = made->values, layer->places = made->places, layer->rows = made->rows, layer->bias = made->bias;
}

static void draw_border(int64_t *border) {
    border[0] = border[1] = -1;
    if (draw(0, 1)) border[0] = draw(0, 2), border[1] = draw(0, 2);
}

static void draw_shape(Layer *layer) {
    for (int i = 0; i < 2; i++) {
        int flat = layer->dimensions < 2 - i;
        layer->kernel[i] = flat ? 1 : draw(1, 4);
        layer->strides[i] = flat ? 1 : draw(1, 3), layer->dilations[i] = flat ? 1 : draw(1, 3);
        layer->pads[i] = flat ? 0 : draw(0, 3), layer->pads[i + 2] = flat ? 0 : draw(0, 3);
    }
    for (int i = 0; i < 3; i++) draw_border(layer->borders[i]);
}

static Made make_layer(void) {
    Made made = {.weights = 0};
    Layer *layer = &made.layer;
    layer->dimensions = (int)draw(0, 2), layer->together = draw(1, 2) * 8;
    draw_shape(layer);
    layer->groups = layer->dimensions ? draw(1, 3) : 1;
    layer->channels_in = draw(1, draw(1, 40)), layer->channels_out = layer->groups * draw(1, draw(1, 30));
    layer->block = draw(1, layer->channels_in);
    layer->activation = (Activation)draw(NONE, ACTIVATIONS - 1);
    layer->alpha = layer->activation == CLIP ? -0.5f : 0.2f, layer->beta = 0.6f;
    int64_t count = layer->channels_out * layer->channels_in * layer->kernel[0] * layer->kernel[1], percent = draw(0, 100);
    made.dense = exactly(count * 4), made.bias = exactly(layer->channels_out * 4);
    for (int64_t i = 0; i < count; i++) {
        made.dense[i] = draw(1, 100) <= percent ? draw_float() : 0;
        made.weights += made.dense[i] != 0;
    }
    for (int64_t i = 0; i < layer->channels_out; i++) made.bias[i] = draw_float();
    compress(&made);
    return made;
}

static void release_layer(Made *made) {
    free(made->dense), free(made->values), free(made->places), free(made->rows), free(made->bias);
}

/* A tensor of an extent, plain or packed; borders and spare channels are zero, the rest random or, as an output, NaN. */
static Tensor make_tensor(const Extent *e, int dimensions, const int64_t *border, int output) {
    Tensor tensor = {.rank = (size_t)dimensions + 2};
    int64_t images = e->groups * e->images;
    const int64_t packed[] = {e->groups, e->channels + (border[0] < 0 ? 0 : spare_channels(e, border)), e->rows + border[0],
                              e->columns + border[1], e->images};
    const int64_t plain[] = {images, e->channels, dimensions == 2 ? e->rows : e->columns, e->columns};
    if (border[0] >= 0) tensor.rank = 5;
    memcpy(tensor.sizes, border[0] >= 0 ? packed : plain, sizeof(int64_t) * tensor.rank);
    int64_t count = product(tensor.sizes, (int)tensor.rank);
    tensor.data = exactly(count * 4);
    for (int64_t i = 0; i < count; i++) tensor.data[i] = output ? NAN : 0;
    View view = view_of(&tensor, e, border);
    for (int64_t i = 0; !output && i < images * e->channels * e->rows * e->columns; i++) {
        int64_t x = i % e->columns, y = i / e->columns % e->rows, c = i / e->columns / e->rows % e->channels;
        int64_t n = i / e->columns / e->rows / e->channels;
        view.data[n / e->images * view.group + n % e->images * view.image + c * view.channel + y * view.row + x * view.column] =
            draw_float();
    }
    return tensor;
}

static double activate(const Layer *layer, double x) {
    double hard = x * layer->alpha + layer->beta, soft = 1 / (1 + exp(-x));
    hard = hard < 0 ? 0 : hard > 1 ? 1 : hard;
    switch (layer->activation) {
    case RELU: return x < 0 ? 0 : x;
    case CLIP: return x < layer->alpha ? layer->alpha : x > layer->beta ? layer->beta : x;
    case LEAKY_RELU: return x < 0 ? x * layer->alpha : x;
    case HARD_SIGMOID: return hard;
    case HARD_SWISH: return x * hard;
    case SIGMOID: return soft;
    case SILU: return x * soft;
    case TANH: return tanh(x);
    default: return x;
    }
}

/* What one output is, by plain loops; `scale` grows to the sum of what was added. */
static double expected(const Made *made, const View *in, const Extent *e, int64_t n, int64_t c, int64_t y, int64_t x, int pool,
                       double added, double *scale) {
    const Layer *layer = &made->layer;
    double sum = pool ? -INFINITY : made->bias[c] + added, size = pool ? 0 : fabs(sum);
    int64_t group = pool ? 0 : c / (layer->channels_out / layer->groups);
    for (int64_t i = 0; i < (pool ? 1 : layer->channels_in); i++)
        for (int64_t ky = 0; ky < layer->kernel[0]; ky++)
            for (int64_t kx = 0; kx < layer->kernel[1]; kx++) {
                int64_t row = y * layer->strides[0] + ky * layer->dilations[0] - layer->pads[0];
                int64_t column = x * layer->strides[1] + kx * layer->dilations[1] - layer->pads[1];
                if (row < 0 || row >= e->rows || column < 0 || column >= e->columns) continue;
                int64_t channel = pool ? c : group * layer->channels_in + i;
                double value = in->data[n / e->images * in->group + n % e->images * in->image + channel * in->channel +
                                        row * in->row + column * in->column];
                if (pool) {
                    sum = value > sum ? value : sum;
                    continue;
                }
                value *= made->dense[((c * layer->channels_in + i) * layer->kernel[0] + ky) * layer->kernel[1] + kx];
                sum += value, size += fabs(value);
            }
    *scale = size > *scale ? size : *scale;
    return pool ? sum : activate(layer, sum);
}

static int told; /* whether each damaged layer is told before it runs */

static int fail(const Layer *layer, const Extent *e, const char *simd, const char *what) {
    fprintf(stderr, "%s: %s: borders %lld %lld, %lld %lld, %lld %lld; %d dimensions, %lld x %lld images of %lldx%lld, %lld -> %lld channels, groups %lld, block %lld, kernel "
           "%lldx%lld, strides %lld %lld, dilations %lld %lld, pads %lld %lld %lld %lld, activation %d\n",
           simd, what, (long long)layer->borders[0][0], (long long)layer->borders[0][1], (long long)layer->borders[1][0],
           (long long)layer->borders[1][1], (long long)layer->borders[2][0], (long long)layer->borders[2][1],
           layer->dimensions, (long long)e->groups, (long long)e->images, (long long)e->rows, (long long)e->columns,
           (long long)layer->channels_in, (long long)layer->channels_out, (long long)layer->groups, (long long)layer->block,
           (long long)layer->kernel[0], (long long)layer->kernel[1], (long long)layer->strides[0], (long long)layer->strides[1],
           (long long)layer->dilations[0], (long long)layer->dilations[1], (long long)layer->pads[0], (long long)layer->pads[1],
           (long long)layer->pads[2], (long long)layer->pads[3], (int)layer->activation);
    return 1;
}

/* Whether the output is the one of plain loops, and zero all around. */
static int compare(const Made *made, const Tensor *in, const Extent *from, const Tensor *residual, const Tensor *out,
                   const Extent *to, int pool, const char *simd) {
    const Layer *layer = &made->layer;
    View x = view_of(in, from, layer->borders[0]), y = view_of(out, to, layer->borders[1]), r = {NULL};
    if (residual) r = view_of(residual, to, layer->borders[2]);
    double worst = 0, scale = 1, here = 0, all = 0;
    for (int64_t n = 0; n < to->groups * to->images; n++)
        for (int64_t i = 0; i < to->channels * to->rows * to->columns; i++) {
            int64_t column = i % to->columns, row = i / to->columns % to->rows, c = i / to->columns / to->rows;
#define AT(v) v.data[n / to->images * v.group + n % to->images * v.image + c * v.channel + row * v.row + column * v.column]
            double found = AT(y), added = residual ? AT(r) : 0;
            double wanted = expected(made, &x, from, n, c, row, column, pool, added, &scale);
            double difference = found == wanted ? 0 : fabs(found - wanted);
            if (!(difference <= worst)) worst = difference;
            here += found == -INFINITY ? 0 : fabs(found);
        }
    for (int64_t i = 0; i < product(out->sizes, (int)out->rank); i++) all += out->data[i] == -INFINITY ? 0 : fabs(out->data[i]);
    if (!(worst <= 1e-5 * scale)) return fail(layer, from, simd, "another output than plain loops");
    return fabs(all - here) <= 1e-9 * (1 + here) ? 0 : fail(layer, from, simd, "not zero around the images");
}

static Extent draw_extent(int dimensions, int64_t channels, int64_t most) {
    static const int64_t batches[] = {1, 1, 2, 3, 4, 8, 16, 16, 33, 64};
    int64_t images = batches[draw(0, 9)], together = images_together(images, most);
    return (Extent){images / together, together, channels, dimensions == 2 ? draw(1, 12) : 1, dimensions ? draw(1, 20) : 1};
}

/* One random layer or pool under one kind of vectors: 0 it is right (or too small to be anything), 1 it is not. */
static int try_one(Made *made, const Extent *from, int pool, const Simd *simd) {
    Layer *layer = &made->layer;
    const char *wrong = pool ? pool_check(layer) : layer_check(layer, made->weights, made->row_count);
    if (wrong) return fail(layer, from, simd->name, wrong);
    Extent to;
    if (extent_of_output(layer, from, &to)) return 0;
    if (to.rows < 1 || to.columns < 1) return 0;
    int adds = !pool && draw(0, 1);
    /* A matrix product of packed images is one over images of one pixel. */
    int dimensions = layer->dimensions;
    Tensor in = make_tensor(from, dimensions, layer->borders[0], 0), residual = {.data = NULL}, out, stated;
    if (adds) residual = make_tensor(&to, dimensions, layer->borders[2], 0);
    if (dimensions == 0) {
        if (layer->borders[0][0] < 0) in.rank = 2;
        if (layer->borders[2][0] < 0) residual.rank = 2;
    }
    out = make_tensor(&to, dimensions, layer->borders[1], 1);
    if (dimensions == 0 && layer->borders[1][0] < 0) out.rank = 2;
    wrong = layer_output(layer, &in, &stated);
    if (!wrong && (stated.rank != out.rank || memcmp(stated.sizes, out.sizes, sizeof(int64_t) * out.rank)))
        wrong = "states another shape than it has";
    if (!wrong) wrong = pool ? pool_run(layer, simd, &in, &out, &host) : layer_run(layer, simd, &in, adds ? &residual : NULL, &out, &host);
    int failed = wrong ? fail(layer, from, simd->name, wrong) : compare(made, &in, from, adds ? &residual : NULL, &out, &to, pool, simd->name);
    free(in.data), free(residual.data), free(out.data);
    return failed;
}

/* A number as a damaged file may hold it. */
static int64_t damage(int64_t number) {
    static const int64_t odd[] = {0, -1, 1, 2, 255, 65535, 65536, 1 << 24, INT32_MAX, INT64_MAX, INT64_MIN, (int64_t)1 << 40};
    switch (draw(0, 2)) {
    case 0: return odd[draw(0, 11)];
    case 1: return (int64_t)((uint64_t)number + (uint64_t)draw(-3, 3));
    default: return draw(-4, 70000);
    }
}

/* A layer with something wrong in it: returns whether it was refused. */
static int try_damaged(Made *made, const Extent *from, int pool, const Simd *simd) {
    Layer *layer = &made->layer;
    int64_t *numbers[] = {&layer->channels_out, &layer->channels_in, &layer->groups, &layer->block, layer->kernel, layer->kernel + 1,
                          layer->strides, layer->strides + 1, layer->dilations, layer->dilations + 1, layer->pads, layer->pads + 1,
                          layer->pads + 2, layer->pads + 3, layer->borders[0], layer->borders[0] + 1, layer->borders[1],
                          layer->borders[1] + 1, layer->borders[2], layer->borders[2] + 1};
    Tensor in = make_tensor(from, layer->dimensions, layer->borders[0], 0), residual = {.rank = in.rank}, out;
    memcpy(residual.sizes, in.sizes, sizeof in.sizes);
    for (int64_t times = draw(1, 3); times; times--) {
        int64_t where = draw(0, 9);
        if (where < 4) {
            int64_t *number = numbers[draw(0, 19)];
            *number = damage(*number);
        } else if (where < 6) {
            made->rows[draw(0, made->row_count - 1)] = (int32_t)damage(made->weights);
        } else if (where < 8 && made->weights) {
            made->places[draw(0, made->weights - 1)] = (uint16_t)damage(7);
        } else {
            Tensor *tensor = draw(0, 1) ? &in : &residual;
            tensor->sizes[draw(0, 4)] = damage(tensor->sizes[0]);
            if (draw(0, 4) == 0) tensor->rank = (size_t)draw(0, 6);
        }
    }
    int64_t counts[] = {product(in.sizes, (int)in.rank), product(residual.sizes, (int)residual.rank)};
    int refused = 1;
    free(in.data);
    in.data = residual.data = NULL;
    if (counts[0] >= 0 && counts[0] <= LARGEST_BUFFER && counts[1] >= 0 && counts[1] <= LARGEST_BUFFER) {
        in.data = calloc((size_t)larger(counts[0], 1), 4), residual.data = calloc((size_t)larger(counts[1], 1), 4);
        /* operators.c holds the bias to as many numbers as there are output channels */
        if (layer->channels_out > 0 && layer->channels_out <= LARGEST_BUFFER) {
            free(made->bias);
            layer->bias = made->bias = calloc((size_t)layer->channels_out, 4);
        }
        const char *wrong = pool ? pool_check(layer) : layer_check(layer, made->weights, made->row_count);
        if (!wrong) wrong = layer_output(layer, &in, &out);
        int64_t count = wrong ? -1 : product(out.sizes, (int)out.rank);
        int64_t steps = wrong ? 0 : layer->kernel[0] * layer->kernel[1];
        if (count >= 0 && count <= LARGEST_BUFFER && steps <= 1 << 16) {
            if (told) fail(layer, from, simd->name, "damaged");
            out.data = exactly(count * 4);
            wrong = pool ? pool_run(layer, simd, &in, &out, &host)
                         : layer_run(layer, simd, &in, draw(0, 1) ? &residual : NULL, &out, &host);
            free(out.data);
        }
        refused = wrong != NULL;
    }
    free(in.data), free(residual.data);
    return refused;
}

int main(int argc, char **argv) {
    static const char *const names[] = {"baseline", "avx2", "avx512"};
    if (argc < 3) return 2;
    told = argc > 3;
    state = strtoull(argv[1], NULL, 10) * 0x9e3779b97f4a7c15u + 1;
    int64_t count = atoll(argv[2]), refused = 0, tried = 0;
    for (int level = 0; level < 3; level++) {
        const Simd *simd = choose_simd(names[level]);
        if (!simd) continue;
        for (int64_t i = 0; i < count; i++, tried++) {
            Made made = make_layer();
            int pool = made.layer.dimensions && draw(0, 4) == 0;
            if (pool) {
                made.layer.channels_in = made.layer.channels_out;
                made.layer.rounds_up = (int)draw(0, 1);
                for (int k = 0; k < 4; k++) made.layer.borders[k / 2][k % 2] = draw(0, 2);
            }
            Extent from = draw_extent(made.layer.dimensions, pool ? made.layer.channels_out : made.layer.channels_in * made.layer.groups, made.layer.together);
            if (try_one(&made, &from, pool, simd)) return 1;
            refused += try_damaged(&made, &from, pool, simd);
            release_layer(&made);
        }
        printf("%s ", simd->name);
    }
    printf("%lld right, %lld of as many damaged refused\n", (long long)tried, (long long)refused);
    return 0;
}
