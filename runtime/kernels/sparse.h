/* What the files of the kernels share: a layer as it was checked, and how activations lie in memory. */
#ifndef ONNX_SHIFT_SPARSE_H
#define ONNX_SHIFT_SPARSE_H

#include <stddef.h>
#include <stdint.h>

/* Tiles: rows, vectors in each of them, weights at a time (see simd.h). */
#define SHAPES(X) \
    X(1, 1, 4) X(1, 2, 4) X(1, 3, 3) X(1, 4, 2) X(1, 5, 2) X(1, 6, 2) X(1, 7, 1) X(1, 8, 1) X(1, 9, 1) X(1, 10, 1) \
    X(1, 11, 1) X(1, 12, 1) X(2, 1, 4) X(2, 2, 2) X(2, 3, 2) X(2, 4, 1) X(2, 5, 1) X(2, 6, 1) X(3, 1, 3) X(3, 2, 2) \
    X(3, 3, 1) X(3, 4, 1) X(4, 1, 2) X(4, 2, 1) X(4, 3, 1) X(5, 2, 1) X(6, 1, 2) X(6, 2, 1) X(7, 1, 1) X(8, 1, 1)
#define ONE_SHAPE(rows, vectors, weights) +1
enum { MOST_VECTORS = 12, WIDEST = 16, SUMS = 4096 + WIDEST }; /* of a tile; floats of a vector; floats of partial sums */
enum { TILES = SHAPES(ONE_SHAPE) };

typedef enum { NONE, RELU, CLIP, LEAKY_RELU, HARD_SIGMOID, HARD_SWISH, SIGMOID, SILU, TANH, ACTIVATIONS } Activation;

/* A convolution with sparse weights; a matrix product is one over images of one pixel. Input channels of a group come in
 * blocks; `rows` says where the weights of each (block, output channel) begin, `places` which (channel in the block,
 * kernel row, kernel column) each of them reads. Read-only once it was checked: several threads share it. */
typedef struct {
    int64_t channels_out, channels_in; /* channels_in: of one group */
    int64_t groups, kernel[2], strides[2], dilations[2], pads[4]; /* pads: top, left, bottom, right */
    int64_t block, blocks;
    const float *values, *bias;
    const uint16_t *places;
    const int32_t *rows;
    Activation activation;
    float alpha, beta;
    int rounds_up;                   /* a pool's sizes */
    int dimensions;                  /* of an image: 2 or 1; 0 for a matrix product */
    int64_t together;                /* the most images that lie innermost */
    int64_t borders[3][2];           /* zero rows above and columns before each image: input, output, residual; -1: plain */
} Layer;

/* Where an activation lies: steps in floats from one group of images, image, channel, row, column to the next. */
typedef struct {
    float *data;
    int64_t group, image, channel, row, column;
} View;

/* Part of one row of an image in a tile: `count` sums from `from` go to `to` (floats within the output's channel). */
typedef struct {
    int64_t from, to, residual, count;
} Piece;

/* What a tile computes: for the output channels [first, last) sums over `x` at the offsets (bytes) of each place. If
 * `straight`, the outputs lie side by side as the sums do, and go to `out` without a stop. */
typedef struct {
    const Layer *layer;
    const int64_t *offsets;
    const float *x;
    int64_t channel, down; /* floats from one input channel, and from one row of the tile, to the next; likewise below */
    int64_t first, last;
    int straight;
    float *out;
    const float *residual;
    int64_t out_channel, out_down, residual_channel, residual_down;
} Rows;

typedef struct {
    const char *name;
    int width; /* floats in a vector */
    struct {
        int rows, vectors;
        void (*sum)(const Rows *, float *sums);
    } tiles[TILES];
    /* Sums to outputs, piece by piece: adds what is added and applies the activation. */
    void (*finish)(const Rows *, const float *sums, int64_t tile, const Piece *, int64_t pieces);
    void (*pick)(float *out, const float *in, int64_t count, int64_t step); /* out = every step-th of in */
    /* out = the largest of it and of each tap, every step-th column of which is read */
    void (*largest)(float *out, const float *const *taps, int64_t count, int64_t columns, int64_t images, int64_t step);
} Simd;

/* Simd of that name, or the best where `asked` is NULL or empty; NULL where the processor has not the one asked for. */
const Simd *choose_simd(const char *asked);

/* An activation as it comes and goes: plain [images, channels, (rows,) columns] or, for a matrix product, [..., channels]; or
 * packed [groups of images, channels + spare, above + rows, before + columns, images of a group]: zero rows above each image
 * and zero columns before each row, which serve as those below and behind, too; spare channels are zero. */
typedef struct {
    int64_t sizes[8];
    size_t rank;
    float *data;
} Tensor;

/* What the kernels need of who calls them. */
typedef struct {
    void *self;
    void *(*allocate)(void *self, size_t bytes); /* NULL: no memory */
    void (*release)(void *self, void *memory);
    void (*parallel)(void *self, void (*work)(void *argument, size_t index), size_t count, void *argument);
} Host;

/* All return NULL, or what is wrong. A pool has no weights and as many channels out as in. */
const char *pool_check(Layer *);
const char *layer_check(Layer *, int64_t weights, int64_t rows);
const char *layer_output(const Layer *, const Tensor *in, Tensor *out); /* states the output's sizes */
const char *layer_run(const Layer *, const Simd *, const Tensor *in, const Tensor *residual, Tensor *out, const Host *);
const char *pool_run(const Layer *, const Simd *, const Tensor *in, Tensor *out, const Host *);

#endif
