/* A layer over a whole activation: where everything lies, which tiles there are, and running them side by side. */
#include "sparse.h"

#include <math.h>
#include <string.h>

enum { LARGEST = 1 << 24, FEWEST_IMAGES = 8, WORTH_SPREADING = 128, NEAR_LINES = 320, WORTH_SHARING = 50000 };

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* The product of counts; -1 where one is negative, or a part of it does not fit into memory. */
static int64_t product(const int64_t *counts, int count) {
    int64_t all = 1;
    int none = 0;
    for (int i = 0; i < count; i++) {
        if (counts[i] < 0 || __builtin_mul_overflow(all, larger(counts[i], 1), &all) || all > INT64_MAX / 64) return -1;
        none |= !counts[i];
    }
    return none ? 0 : all;
}

static const char *check_sizes(const Layer *layer) {
    const int64_t positive[] = {layer->channels_out, layer->channels_in, layer->groups, layer->kernel[0], layer->kernel[1],
                                layer->strides[0], layer->strides[1], layer->dilations[0], layer->dilations[1], layer->block};
    for (size_t i = 0; i < sizeof positive / sizeof *positive; i++)
        if (positive[i] < 1 || positive[i] > LARGEST) return "a size is not positive, or too large";
    for (int i = 0; i < 4; i++)
        if (layer->pads[i] < 0 || layer->pads[i] > LARGEST) return "a pad is negative, or too large";
    for (int i = 0; i < 2 - layer->dimensions; i++)
        if (layer->kernel[i] != 1 || layer->pads[i] || layer->pads[i + 2]) return "a kernel has more dimensions than the images";
    for (int i = 0; i < 6; i++)
        if (layer->borders[i / 2][i % 2] < -1 || layer->borders[i / 2][i % 2] > LARGEST) return "a border is too large";
    for (int i = 0; i < 3; i++)
        if ((layer->borders[i][0] < 0) != (layer->borders[i][1] < 0)) return "a border is half stated";
    return NULL;
}

const char *layer_check(Layer *layer, int64_t weights, int64_t rows) {
    const char *wrong = check_sizes(layer);
    if (wrong) return wrong;
    if (layer->channels_out % layer->groups) return "the output channels are no multiple of the groups";
    if ((unsigned)layer->activation >= ACTIVATIONS) return "there is no such activation";
    int64_t taps = product(layer->kernel, 2);
    if (taps > UINT16_MAX + 1 || layer->block * taps > UINT16_MAX + 1) return "a block has more places than 16 bits can tell";
    layer->blocks = divide_up(layer->channels_in, layer->block);
    if (rows != layer->blocks * layer->channels_out + 1) return "the number of row pointers is wrong";
    if (layer->rows[0] != 0 || layer->rows[rows - 1] != weights) return "the row pointers do not span the weights";
    for (int64_t i = 1; i < rows; i++)
        if (layer->rows[i] < layer->rows[i - 1]) return "the row pointers decrease";
    for (int64_t block = 0; block < layer->blocks; block++) {
        int64_t there = smaller(layer->block, layer->channels_in - block * layer->block) * taps;
        int64_t end = layer->rows[(block + 1) * layer->channels_out];
        for (int64_t i = layer->rows[block * layer->channels_out]; i < end; i++)
            if (layer->places[i] >= there) return "a weight's place lies outside its block";
    }
    return NULL;
}

const char *pool_check(Layer *layer) {
    layer->channels_in = layer->channels_out, layer->groups = layer->block = 1;
    const char *wrong = check_sizes(layer);
    if (!wrong && (layer->borders[0][0] < 0 || layer->borders[1][0] < 0)) wrong = "a pool reads and writes packed activations";
    return wrong;
}

/* How many images make a group: innermost, they fill vectors; too many would lie too far apart. */
static int64_t images_together(int64_t images, int64_t most) {
    int64_t together = smaller(images, most);
    while (together > 1 && images % together) together--;
    return together < FEWEST_IMAGES ? images : together;
}

typedef struct {
    int64_t groups, images; /* groups of so many images each */
    int64_t channels, rows, columns;
} Extent;

/* Floats from one channel of a packed activation to the next: channels begin with a line of the cache, an odd number of
 * lines apart, else many would lie in the same part of it. */
static int64_t packed_channel(const Extent *extent, const int64_t *border) {
    int64_t plane = (extent->rows + border[0]) * (extent->columns + border[1]) * extent->images;
    return plane < WORTH_SPREADING ? plane : divide_up(plane, 16) / 2 * 32 + 16;
}

/* Channels in the shape that follow the last one: there is room for what lies between channels, and what reads past the
 * last one finds zeros; -1 where an image is too large. */
static int64_t spare_channels(const Extent *extent, const int64_t *border) {
    const int64_t sizes[] = {extent->rows + border[0] + 2, extent->columns + border[1] + 2, extent->images, extent->channels + 1};
    if (product(sizes, 4) < 0) return -1;
    int64_t plane = (sizes[0] - 2) * (sizes[1] - 2) * extent->images;
    int64_t behind = (border[0] * (sizes[1] - 2) + border[1]) * extent->images + WIDEST;
    return divide_up(extent->channels * (packed_channel(extent, border) - plane) + behind, larger(plane, 1));
}

static const char *read_extent(const Layer *layer, const Tensor *tensor, int64_t channels, const int64_t *border, Extent *extent) {
    const int64_t *sizes = tensor->sizes;
    int dimensions = layer->dimensions;
    if (product(sizes, (int)tensor->rank) < 0) return "an activation is too large";
    for (size_t i = 0; i < tensor->rank; i++)
        if (sizes[i] > INT32_MAX) return "an activation is too large";
    if (border[0] >= 0) {
        if (tensor->rank != 5 || sizes[2] < border[0] || sizes[3] < border[1]) return "a packed activation is not of its form";
        *extent = (Extent){sizes[0], sizes[4], channels, sizes[2] - border[0], sizes[3] - border[1]};
        if ((dimensions < 2 && extent->rows != 1) || (dimensions < 1 && extent->columns != 1))
            return "a packed activation has more dimensions than the layer";
        if (sizes[1] != channels + spare_channels(extent, border)) return "a packed activation has other channels";
        return NULL;
    }
    int64_t images, rows = 1, columns = 1;
    if (dimensions == 0) {
        if (tensor->rank < 1 || sizes[tensor->rank - 1] != channels) return "the input has other columns than the weights have rows";
        images = product(sizes, (int)tensor->rank - 1);
    } else {
        if (tensor->rank != (size_t)dimensions + 2 || sizes[1] != channels) return "the input has not the layer's rank or channels";
        images = sizes[0];
        columns = sizes[dimensions + 1];
        if (dimensions == 2) rows = sizes[2];
    }
    int64_t together = images_together(images, layer->together);
    *extent = (Extent){together ? images / together : 0, together, channels, rows, columns};
    return NULL;
}

/* Where a tensor's activations lie, from the first pixel of the first image. */
static View view_of(const Tensor *tensor, const Extent *e, const int64_t *border) {
    if (border[0] < 0) {
        int64_t plane = e->rows * e->columns, image = plane * e->channels;
        return (View){tensor->data, image * e->images, image, plane, e->columns, 1};
    }
    int64_t row = (e->columns + border[1]) * e->images, group = (e->rows + border[0]) * row * tensor->sizes[1];
    return (View){tensor->data + border[0] * row + border[1] * e->images, group, 1, packed_channel(e, border), row, e->images};
}

/* Sizes of the output; with `rounds_up` the last window may begin inside and end behind the padded input. */
static const char *extent_of_output(const Layer *layer, const Extent *in, Extent *out) {
    const int64_t sizes[2] = {in->rows, in->columns};
    int64_t found[2];
    for (int i = 0; i < 2; i++) {
        int64_t room = sizes[i] + layer->pads[i] + layer->pads[i + 2] - (layer->kernel[i] - 1) * layer->dilations[i] - 1;
        if (room < 0) return "the input is smaller than the kernel";
        found[i] = (layer->rounds_up ? divide_up(room, layer->strides[i]) : room / layer->strides[i]) + 1;
        if (layer->rounds_up && (found[i] - 1) * layer->strides[i] >= sizes[i] + layer->pads[i]) found[i]--;
    }
    *out = (Extent){in->groups, in->images, layer->channels_out, found[0], found[1]};
    return NULL;
}

const char *layer_output(const Layer *layer, const Tensor *in, Tensor *out) {
    Extent from, to;
    const char *wrong = read_extent(layer, in, layer->channels_in * layer->groups, layer->borders[0], &from);
    if (!wrong) wrong = extent_of_output(layer, &from, &to);
    if (wrong) return wrong;
    const int64_t *border = layer->borders[1];
    if (border[0] >= 0) {
        int64_t spare = spare_channels(&to, border);
        if (spare < 0) return "the output is too large";
        const int64_t sizes[] = {to.groups, to.channels + spare, border[0] + to.rows,
                                 border[1] + to.columns, to.images};
        memcpy(out->sizes, sizes, sizeof sizes);
        out->rank = 5;
    } else if (layer->dimensions == 0) {
        memcpy(out->sizes, in->sizes, sizeof in->sizes);
        out->rank = in->rank;
        if (layer->borders[0][0] >= 0) out->sizes[0] = to.groups * to.images, out->rank = 2; /* from a packed input */
        out->sizes[out->rank - 1] = to.channels;
    } else {
        const int64_t sizes[] = {to.groups * to.images, to.channels, layer->dimensions == 2 ? to.rows : to.columns, to.columns};
        memcpy(out->sizes, sizes, sizeof sizes);
        out->rank = (size_t)layer->dimensions + 2;
    }
    return product(out->sizes, (int)out->rank) < 0 ? "the output is too large" : NULL;
}

/* Everything that a call works out before its tiles run. */
typedef struct {
    const Layer *layer;
    const Simd *simd;
    Extent in, out;
    View source;              /* the input as it came */
    View x;                   /* the input as the tiles read it; column is `images` */
    View y, residual, result; /* y: as the tiles write it; result: as it goes */
    int packs, unpacks, borders;
    int64_t slots[2], height, width; /* of the packed input: planes for each phase of a stride, and their size */
    int64_t *offsets;
    void (*sum)(const Rows *, float *sums);
    int merged;                        /* whether tiles run on over the columns between rows */
    int64_t run, runs, tall, vectors, tiles; /* tiles of so many rows and vectors in each of `runs` runs of positions */
    int64_t rows_at_once, shares;      /* output channels for which partial sums are kept; parts that channels are dealt in */
    View copy_from, copy_to;           /* for `copy_channel` */
    const Extent *copied;
} Plan;

static void copy_row(const Simd *simd, float *to, int64_t to_column, int64_t to_image, const float *from, int64_t from_column, int64_t from_image,
                     int64_t columns, int64_t images) {
    if (images == 1 && to_column == 1 && from_column == 1) {
        memcpy(to, from, (size_t)columns * sizeof *to);
    } else if (images == 1) {
        simd->pick(to, from, columns, from_column); /* nothing is written with gaps but images */
    } else if (to_image == 1 && from_image == 1) {
        for (int64_t x = 0; x < columns; x++, to += to_column, from += from_column)
            memcpy(to, from, (size_t)images * sizeof *to);
    } else {
        for (int64_t begin = 0; begin < columns; begin += 16) {
            int64_t end = smaller(columns, begin + 16);
            for (int64_t n = 0; n < images; n++)
                for (int64_t x = begin; x < end; x++)
                    to[x * to_column + n * to_image] = from[x * from_column + n * from_image];
        }
    }
}

/* One channel of the input into planes with padding, one plane for each phase of the strides that is read. */
static void pack_channel(void *argument, size_t index) {
    const Plan *plan = argument;
    const Layer *layer = plan->layer;
    int64_t images = plan->in.images, group = (int64_t)index / plan->in.channels, channel = (int64_t)index % plan->in.channels;
    const float *from = plan->source.data + group * plan->source.group + channel * plan->source.channel;
    float *to = plan->x.data + group * plan->x.group + channel * plan->x.channel;
    memset(to, 0, (size_t)plan->x.channel * sizeof *to); /* at once: most rows are short */
    for (int64_t slot = 0; slot < plan->slots[0] * plan->slots[1]; slot++) {
        int64_t shift_y = slot / plan->slots[1] * layer->dilations[0] % layer->strides[0] - layer->pads[0];
        int64_t shift_x = slot % plan->slots[1] * layer->dilations[1] % layer->strides[1] - layer->pads[1];
        int64_t before = smaller(plan->width, shift_x < 0 ? divide_up(-shift_x, layer->strides[1]) : 0);
        int64_t end = larger(before, smaller(plan->width, divide_up(larger(plan->in.columns - shift_x, 0), layer->strides[1])));
        for (int64_t row = 0; row < plan->height; row++, to += plan->width * images) {
            int64_t y = row * layer->strides[0] + shift_y;
            if (y < 0 || y >= plan->in.rows) continue;
            copy_row(plan->simd, to + before * images, images, 1,
                     from + y * plan->source.row + (before * layer->strides[1] + shift_x) * plan->source.column,
                     plan->source.column * layer->strides[1], plan->source.image, end - before, images);
        }
    }
}

static void copy_channel(void *argument, size_t index) {
    const Plan *plan = argument;
    const View *from = &plan->copy_from, *to = &plan->copy_to;
    const Extent *e = plan->copied;
    int64_t group = (int64_t)index / e->channels, channel = (int64_t)index % e->channels;
    for (int64_t y = 0; y < e->rows; y++)
        copy_row(plan->simd, to->data + group * to->group + channel * to->channel + y * to->row, to->column, to->image,
                 from->data + group * from->group + channel * from->channel + y * from->row, from->column, from->image,
                 e->columns, e->images);
}

/* Whether outputs lie as their sums do: runs of one row each, or rows as far apart as the input's. */
static int lies_alike(const Plan *plan) {
    return !plan->merged || (plan->y.row == plan->x.row && (!plan->residual.data || plan->residual.row == plan->x.row));
}

static void clear(float *from, int64_t count) { memset(from, 0, (size_t)count * sizeof *from); }

/* The zeros around the images of a packed output. */
static void write_borders(const Plan *plan, int64_t group, int64_t first, int64_t last) {
    const int64_t *border = plan->layer->borders[1];
    const View *y = &plan->y;
    int64_t before = border[1] * plan->out.images, above = border[0] * y->row, plane = above + plan->out.rows * y->row;
    int gaps = plan->merged && lies_alike(plan); /* whose tiles clear what is between rows */
    float *at = y->data + group * y->group - above - before;
    for (int64_t channel = first; channel < last; channel++) {
        float *begin = at + channel * y->channel;
        clear(begin, above);
        for (int64_t row = 0; row < (gaps ? 1 : plan->out.rows); row++) clear(begin + above + row * y->row, before);
        clear(begin + plane, y->channel - plane);
    }
    if (last == plan->out.channels) clear(at + last * y->channel, y->group - last * y->channel);
}

/* Where the sums of the positions [begin, end) of a run go; the tile begins with the position `start` of the row `top`. */
static int64_t cut_pieces(const Plan *plan, int64_t run, int64_t top, int64_t start, int64_t begin, int64_t end, Piece *pieces) {
    int64_t filled = plan->out.columns * plan->out.images, count = 0;
    if (!plan->merged) {
        for (int64_t y = run * plan->tall; y < top + plan->tall; y++)
            pieces[count++] = (Piece){(y - top) * plan->vectors * plan->simd->width + begin - start, y * plan->y.row + begin,
                                      y * plan->residual.row + begin, smaller(end, filled) - begin};
        return count;
    }
    int whole = filled == plan->x.row && plan->y.row == filled && (!plan->residual.data || plan->residual.row == filled);
    if (whole) {
        pieces[0] = (Piece){begin - start, begin, begin, end - begin};
        return 1;
    }
    while (begin < end) {
        int64_t row = begin / plan->x.row, column = begin % plan->x.row;
        int64_t here = smaller(end - begin, filled - column);
        if (here > 0) {
            pieces[count++] = (Piece){begin - start, row * plan->y.row + column, row * plan->residual.row + column, here};
        }
        begin += larger(here, 0);
        if (column + larger(here, 0) >= filled) begin = (row + 1) * plan->x.row;
    }
    return count;
}

/* The zeros between the rows of a packed output in a tile, where sums may have been written. */
static void clear_gaps(const Plan *plan, const Rows *rows, float *out, int64_t begin, int64_t end) {
    int64_t filled = plan->out.columns * plan->out.images, pitch = plan->x.row;
    for (int64_t row = rows->first; row < rows->last; row++)
        for (int64_t gap = begin / pitch * pitch + filled; gap < end; gap += pitch) {
            int64_t from = larger(gap, begin), to = smaller(gap + pitch - filled, end);
            for (int64_t i = from; i < to; i++) out[row * rows->out_channel + i] = 0;
        }
}

static void run_tile(void *argument, size_t index) {
    const Plan *plan = argument;
    const Layer *layer = plan->layer;
    int64_t each = plan->runs * plan->tiles, tile = (int64_t)index % each;
    int64_t share = (int64_t)index / each % plan->shares, group = (int64_t)index / each / plan->shares;
    int64_t first = share * layer->channels_out / plan->shares, last = (share + 1) * layer->channels_out / plan->shares;
    int64_t run = tile / plan->tiles, length = plan->vectors * plan->simd->width;
    int64_t begin = tile % plan->tiles * length, end = smaller(begin + length, plan->run);
    /* The last tiles begin earlier rather than end behind. */
    int64_t start = larger(smaller(begin, plan->run - length), 0), top = smaller(run * plan->tall, plan->out.rows - plan->tall);
    int whole = begin == start && end - begin == length && top == run * plan->tall;
    Piece pieces[MOST_VECTORS * WIDEST];
    float sums[SUMS] __attribute__((aligned(64)));
    Rows rows = {layer, plan->offsets, plan->x.data + group * plan->x.group + top * plan->x.row + start, plan->x.channel, plan->x.row,
                 0, 0, 0, plan->y.data + group * plan->y.group, NULL, plan->y.channel, plan->y.row, plan->residual.channel,
                 plan->residual.row};
    if (plan->residual.data) rows.residual = plan->residual.data + group * plan->residual.group;
    /* The last tile, which may write what another one does, keeps to its part. */
    rows.straight = layer->activation <= CLIP && whole && lies_alike(plan);
    int gaps = plan->borders && plan->merged && lies_alike(plan);
    int64_t count = rows.straight ? 0 : cut_pieces(plan, run, top, start, begin, end, pieces);
    if (rows.straight) {
        rows.out += top * plan->y.row + begin;
        if (rows.residual) rows.residual += top * plan->residual.row + begin;
    }
    for (rows.first = first; rows.first < last; rows.first = rows.last) {
        rows.last = smaller(last, rows.first + plan->rows_at_once);
        plan->sum(&rows, sums);
        if (!rows.straight) plan->simd->finish(&rows, sums, length * plan->tall, pieces, count);
        if (gaps) clear_gaps(plan, &rows, plan->y.data + group * plan->y.group, begin, end);
    }
    if (plan->borders && tile == 0) write_borders(plan, group, first, last);
}

/* Whether tiles can read the input where it lies: no stride, enough zeros around, images side by side, room at the end. */
static int lies_ready(const Plan *plan) {
    const Layer *layer = plan->layer;
    const int64_t *border = layer->borders[0];
    if (layer->strides[0] != 1 || layer->strides[1] != 1) return 0;
    if (border[0] >= 0)
        return larger(layer->pads[0], layer->pads[2]) <= border[0] && larger(layer->pads[1], layer->pads[3]) <= border[1] &&
               plan->out.columns <= plan->in.columns + border[1]; /* else its rows overlap */
    int64_t run = (plan->out.rows - 1) * plan->in.columns + plan->out.columns;
    return plan->in.images == 1 && !layer->pads[0] && !layer->pads[1] && !layer->pads[2] && !layer->pads[3] &&
           run >= plan->simd->width;
}

/* What a weight of a tile takes, in reads from the first-level cache: a row's sums are fetched and kept for each block, and
 * what of a block's inputs (in lines) that cache has no room for comes from the next one. */
static double cost_of_weight(const Plan *plan, int64_t tall, int64_t vectors) {
    const Layer *layer = plan->layer;
    int64_t begun = layer->blocks * layer->channels_out, line = 64 / (int64_t)sizeof(float);
    double floats = (double)(vectors * plan->simd->width), reads = (double)(tall * vectors), beside = 0;
    double reach = plan->packs ? 0 : (double)((layer->kernel[1] - 1) * layer->dilations[1] * plan->in.images);
    double high = (double)(tall + (plan->packs ? 0 : (layer->kernel[0] - 1) * layer->dilations[0]));
    double lines = (double)layer->block * high * ((floats + reach) / (double)line + 0.5);
    if (lines > NEAR_LINES) beside = (1 - NEAR_LINES / lines) * (double)tall * (floats / (double)line + 0.5);
    return reads + 1.5 + 1.5 * beside + (2 * reads + 4) * (double)begun / (double)larger(layer->rows[begun], 1);
}

/* One run over the whole image with the columns between rows computed and dropped, or runs of a few rows; and the tiles. */
static void choose_tiles(Plan *plan) {
    int64_t filled = plan->out.columns * plan->out.images, width = plan->simd->width;
    int room = plan->packs || plan->layer->borders[0][0] >= 0;
    double best = -1;
    for (int merged = 1; merged >= 0; merged--)
        for (int i = 0; i < TILES; i++) {
            int64_t tall = plan->simd->tiles[i].rows, vectors = plan->simd->tiles[i].vectors;
            int64_t run = merged ? (plan->out.rows - 1) * plan->x.row + filled : filled;
            if (tall > 1 && (merged || tall > plan->out.rows || run < vectors * width)) continue;
            if (!room && run < vectors * width && run % width) continue;
            int64_t runs = merged ? 1 : divide_up(plan->out.rows, tall), tiles = divide_up(run, vectors * width);
            double cost = (double)(runs * tiles) * cost_of_weight(plan, tall, vectors);
            if (best >= 0 && cost >= best) continue;
            best = cost;
            plan->sum = plan->simd->tiles[i].sum, plan->merged = merged;
            plan->run = run, plan->runs = runs, plan->tall = tall, plan->vectors = vectors, plan->tiles = tiles;
        }
}

static void write_offsets(Plan *plan) {
    const Layer *layer = plan->layer;
    int64_t *offset = plan->offsets;
    for (int64_t channel = 0; channel < layer->block; channel++)
        for (int64_t ky = 0; ky < layer->kernel[0]; ky++)
            for (int64_t kx = 0; kx < layer->kernel[1]; kx++) {
                int64_t y = ky * layer->dilations[0], x = kx * layer->dilations[1], plane = 0;
                if (plan->packs) {
                    plane = (ky % plan->slots[0] * plan->slots[1] + kx % plan->slots[1]) * plan->height * plan->x.row;
                    y /= layer->strides[0], x /= layer->strides[1];
                }
                *offset++ = 4 * (channel * plan->x.channel + plane + y * plan->x.row + x * plan->x.column);
            }
}

static int64_t greatest_common_divisor(int64_t a, int64_t b) { return b ? greatest_common_divisor(b, a % b) : a; }

/* Lays out the input as the tiles read it; returns the floats needed for it. */
static int64_t plan_input(Plan *plan) {
    const Layer *layer = plan->layer;
    const Extent *in = &plan->in;
    plan->packs = !lies_ready(plan);
    if (!plan->packs) {
        plan->x = plan->source;
        plan->x.data -= layer->pads[0] * plan->x.row + layer->pads[1] * plan->x.column;
        return 0;
    }
    int64_t reach[2];
    for (int i = 0; i < 2; i++) {
        plan->slots[i] = smaller(layer->kernel[i], layer->strides[i] / greatest_common_divisor(layer->strides[i], layer->dilations[i]));
        reach[i] = (layer->kernel[i] - 1) * layer->dilations[i] / layer->strides[i];
    }
    plan->height = plan->out.rows + reach[0], plan->width = plan->out.columns + reach[1];
    const int64_t sizes[] = {plan->slots[0] * plan->slots[1], plan->height, plan->width, in->images, in->channels, in->groups};
    int64_t channel = product(sizes, 4), all = product(sizes, 6);
    plan->x = (View){NULL, channel * in->channels, 1, channel, plan->width * in->images, in->images};
    return all < 0 ? -1 : all + WIDEST;
}

/* A packed copy without borders, for what the tiles cannot read or write where it lies; returns the floats needed. */
static int64_t plan_copy(const Extent *e, View *view) {
    int64_t plane = e->rows * e->columns * e->images;
    *view = (View){NULL, plane * e->channels, 1, plane, e->columns * e->images, e->images};
    return plane * e->channels * e->groups;
}

static void share(const Host *host, void (*work)(void *, size_t), int64_t count, Plan *plan, int worth) {
    if (worth && count > 1)
        host->parallel(host->self, work, (size_t)count, plan);
    else
        for (int64_t i = 0; i < count; i++) work(plan, (size_t)i);
}

static void copy_all(Plan *plan, const Extent *e, View from, View to, const Host *host) {
    plan->copied = e, plan->copy_from = from, plan->copy_to = to;
    share(host, copy_channel, e->groups * e->channels, plan, e->groups * e->channels * e->rows * e->columns * e->images > WORTH_SHARING);
}

const char *layer_run(const Layer *layer, const Simd *simd, const Tensor *in, const Tensor *residual, Tensor *out, const Host *host) {
    Plan plan = {.layer = layer, .simd = simd};
    Extent added;
    const char *wrong = read_extent(layer, in, layer->channels_in * layer->groups, layer->borders[0], &plan.in);
    if (!wrong) wrong = extent_of_output(layer, &plan.in, &plan.out);
    if (!wrong && residual) wrong = read_extent(layer, residual, layer->channels_out, layer->borders[2], &added);
    if (wrong) return wrong;
    if (residual && memcmp(&added, &plan.out, sizeof added)) return "what is added is not of the output's shape";
    if (!plan.out.groups || !plan.out.images) return NULL;
    plan.source = view_of(in, &plan.in, layer->borders[0]);
    plan.result = plan.y = view_of(out, &plan.out, layer->borders[1]);
    plan.borders = layer->borders[1][0] >= 0;
    plan.unpacks = !plan.borders && plan.out.images > 1;

    int64_t input = plan_input(&plan), unpacked = plan.unpacks ? plan_copy(&plan.out, &plan.y) : 0, repacked = 0;
    if (residual) plan.residual = view_of(residual, &added, layer->borders[2]);
    View given = plan.residual;
    int repacks = residual && plan.residual.image != 1 && added.images > 1;
    if (repacks) repacked = plan_copy(&added, &plan.residual);
    int64_t places = layer->block * layer->kernel[0] * layer->kernel[1] * 2; /* floats, two to an offset */
    int64_t bytes;
    if (input < 0 || __builtin_mul_overflow(input + unpacked + repacked + places + 32, (int64_t)sizeof(float), &bytes))
        return "the input is too large";
    char *memory = host->allocate(host->self, (size_t)bytes);
    if (!memory) return "there is not enough memory";
    plan.offsets = (int64_t *)(memory + (-(uintptr_t)memory & 63));
    float *floats = (float *)plan.offsets + places;
    if (plan.packs) {
        plan.x.data = floats;
        memset(floats + input - WIDEST, 0, WIDEST * sizeof *floats);
        share(host, pack_channel, plan.in.groups * plan.in.channels, &plan, input > WORTH_SHARING);
    }
    if (plan.unpacks) plan.y.data = floats + input;
    if (repacks) {
        plan.residual.data = floats + input + unpacked;
        copy_all(&plan, &added, given, plan.residual, host);
    }
    write_offsets(&plan);
    choose_tiles(&plan);
    int64_t kept = (SUMS - WIDEST) / (plan.tall * plan.vectors * simd->width);
    plan.rows_at_once = layer->blocks == 1 ? smaller(kept, 16) : kept;
    int64_t each = plan.out.groups * plan.runs * plan.tiles;
    double work = (double)layer->rows[layer->blocks * layer->channels_out] * (double)(each * (plan.tall * plan.vectors + 2)) / 2;
    plan.shares = each >= 8 || work < WORTH_SHARING ? 1 : smaller(divide_up(8, each), divide_up(layer->channels_out, 8));
    share(host, run_tile, each * plan.shares, &plan, work > WORTH_SHARING);
    if (plan.unpacks) copy_all(&plan, &plan.out, plan.y, plan.result, host);
    host->release(host->self, memory);
    return NULL;
}

typedef struct {
    const Layer *layer;
    const Simd *simd;
    Extent in, out;
    View x, y;
} Pool;

/* One tap of a pool over a row: those of its outputs whose tap lies inside the image. */
static void pool_tap(const Pool *p, float *to, const float *from, int64_t shift) {
    int64_t step = p->layer->strides[1], images = p->in.images;
    int64_t begin = shift < 0 ? divide_up(-shift, step) : 0;
    int64_t end = smaller(p->out.columns, divide_up(larger(p->in.columns - shift, 0), step));
    const float *tap = from + (begin * step + shift) * images;
    if (begin < end) p->simd->largest(to + begin * images, &tap, 1, end - begin, images, step);
}

static void pool_channel(void *argument, size_t index) {
    const Pool *p = argument;
    const Layer *layer = p->layer;
    int64_t group = (int64_t)index / p->in.channels, channel = (int64_t)index % p->in.channels;
    const float *from = p->x.data + group * p->x.group + channel * p->x.channel;
    float *to = p->y.data + group * p->y.group + channel * p->y.channel;
    int64_t filled = p->out.columns * p->in.images;
    int pairs = layer->kernel[0] == 2 && layer->kernel[1] == 2 && layer->strides[1] == 2 &&
                layer->dilations[1] == 1 && layer->pads[1] == 0 && 2 * p->out.columns <= p->in.columns;
    for (int64_t row = 0; row < p->out.rows; row++, to += p->y.row) {
        int64_t y = row * layer->strides[0] - layer->pads[0], next = y + layer->dilations[0];
        for (int64_t i = 0; i < filled; i++) to[i] = -INFINITY;
        if (pairs && y >= 0 && next < p->in.rows) { /* the usual pool, all at once */
            const float *up = from + y * p->x.row, *down = from + next * p->x.row, *taps[4] = {up, up + p->in.images, down, down + p->in.images};
            p->simd->largest(to, taps, 4, p->out.columns, p->in.images, 2);
            continue;
        }
        for (int64_t ky = 0; ky < layer->kernel[0]; ky++, y = next, next += layer->dilations[0])
            for (int64_t kx = 0; kx < layer->kernel[1] && y >= 0 && y < p->in.rows; kx++)
                pool_tap(p, to, from + y * p->x.row, kx * layer->dilations[1] - layer->pads[1]);
    }
}

const char *pool_run(const Layer *layer, const Simd *simd, const Tensor *in, Tensor *out, const Host *host) {
    Plan plan = {.layer = layer};
    const char *wrong = read_extent(layer, in, layer->channels_out, layer->borders[0], &plan.in);
    if (!wrong) wrong = extent_of_output(layer, &plan.in, &plan.out);
    if (wrong) return wrong;
    plan.y = view_of(out, &plan.out, layer->borders[1]);
    Pool pool = {layer, simd, plan.in, plan.out, view_of(in, &plan.in, layer->borders[0]), plan.y};
    int64_t channels = pool.in.groups * pool.in.channels;
    for (int64_t group = 0; group < pool.in.groups; group++) write_borders(&plan, group, 0, pool.out.channels);
    if (channels * pool.in.rows * pool.in.columns * pool.in.images > WORTH_SHARING)
        host->parallel(host->self, pool_channel, (size_t)channels, &pool);
    else
        for (int64_t i = 0; i < channels; i++) pool_channel(&pool, (size_t)i);
    return NULL;
}
