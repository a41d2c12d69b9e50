/* The kernels as operators of onnxruntime: domain onnx_shift, SparseConv and PackedMaxPool. */
#include "ort.h"
#include "sparse.h"

#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))
#define LEVEL "ONNX_SHIFT_KERNELS" /* names the instructions to use: avx512, avx2 or baseline */

typedef struct {
    Ort ort;
    OrtMemory *memory;
    const Simd *simd;
    Layer layer;
} Kernel;

enum { INPUT, VALUES, PLACES, ROWS, BIAS, RESIDUAL, INPUTS };

/* The first status that is no success is kept, and ends what follows. */
#define TRY(call) do { OrtStatus *status_ = (call); if (status_) return status_; } while (0)

static OrtStatus *refuse(Ort ort, const char *wrong) {
    return wrong ? ort_create_status(ort)(ORT_INVALID_ARGUMENT, wrong) : NULL;
}

static OrtStatus *read_tensor(Ort ort, const OrtValue *value, int type, Tensor *tensor) {
    OrtShape *shape;
    int found;
    TRY(ort_shape(ort)(value, &shape));
    OrtStatus *status = ort_element_type(ort)(shape, &found);
    if (!status) status = ort_rank(ort)(shape, &tensor->rank);
    if (!status && tensor->rank <= 8) status = ort_sizes(ort)(shape, tensor->sizes, tensor->rank);
    ort_release_shape(ort)(shape);
    if (status) return status;
    if (found != type || tensor->rank > 8) return refuse(ort, "a tensor has another type or rank than the kernels take");
    return ort_data(ort)((OrtValue *)value, (void **)&tensor->data);
}

static OrtStatus *read_constant(Ort ort, const OrtInfo *info, size_t place, int type, const void **data, int64_t *count) {
    int constant = 0;
    const OrtValue *value = NULL;
    Tensor tensor;
    TRY(ort_constant(ort)(info, place, &constant, &value));
    if (!constant || !value) return refuse(ort, "weights, places, rows and bias must be constant");
    TRY(read_tensor(ort, value, type, &tensor));
    if (tensor.rank != 1) return refuse(ort, "weights, places, rows and bias must have one dimension");
    *data = tensor.data;
    *count = tensor.sizes[0];
    return NULL;
}

static OrtStatus *read_ints(Ort ort, const OrtInfo *info, const char *name, size_t count, int64_t *numbers) {
    size_t found = count;
    TRY(ort_attribute_ints(ort)(info, name, numbers, &found)); /* fails where there are more */
    return found == count ? NULL : refuse(ort, "an attribute has too few numbers");
}

static OrtStatus *read_attributes(Ort ort, const OrtInfo *info, Layer *layer) {
    int64_t dimensions;
    TRY(read_ints(ort, info, "kernel", 2, layer->kernel));
    TRY(read_ints(ort, info, "strides", 2, layer->strides));
    TRY(read_ints(ort, info, "dilations", 2, layer->dilations));
    TRY(read_ints(ort, info, "pads", 4, layer->pads));
    TRY(read_ints(ort, info, "borders", 6, layer->borders[0]));
    TRY(ort_attribute_int(ort)(info, "channels", &layer->channels_out));
    TRY(ort_attribute_int(ort)(info, "dimensions", &dimensions));
    if (dimensions < 0 || dimensions > 2) return refuse(ort, "images have one or two dimensions, or none");
    layer->dimensions = (int)dimensions;
    return NULL;
}

static OrtStatus *read_convolution(Ort ort, const OrtInfo *info, Layer *layer) {
    int64_t weights, places, rows, biases, activation;
    TRY(read_attributes(ort, info, layer));
    TRY(ort_attribute_int(ort)(info, "group_channels", &layer->channels_in));
    TRY(ort_attribute_int(ort)(info, "group", &layer->groups));
    TRY(ort_attribute_int(ort)(info, "block", &layer->block));
    TRY(ort_attribute_int(ort)(info, "activation", &activation));
    TRY(ort_attribute_float(ort)(info, "alpha", &layer->alpha));
    TRY(ort_attribute_float(ort)(info, "beta", &layer->beta));
    TRY(read_constant(ort, info, VALUES, ORT_FLOAT, (const void **)&layer->values, &weights));
    TRY(read_constant(ort, info, PLACES, ORT_UINT16, (const void **)&layer->places, &places));
    TRY(read_constant(ort, info, ROWS, ORT_INT32, (const void **)&layer->rows, &rows));
    TRY(read_constant(ort, info, BIAS, ORT_FLOAT, (const void **)&layer->bias, &biases));
    if (places != weights || biases != layer->channels_out) return refuse(ort, "weights, places and bias differ in length");
    layer->activation = activation < 0 || activation >= ACTIVATIONS ? ACTIVATIONS : (Activation)activation;
    return refuse(ort, layer_check(layer, weights, rows));
}

static OrtStatus *read_pool(Ort ort, const OrtInfo *info, Layer *layer) {
    int64_t rounds_up;
    TRY(read_attributes(ort, info, layer));
    TRY(ort_attribute_int(ort)(info, "ceil_mode", &rounds_up));
    layer->rounds_up = rounds_up != 0;
    return refuse(ort, pool_check(layer));
}

static OrtStatus *create(Ort ort, const OrtInfo *info, OrtStatus *(*read)(Ort, const OrtInfo *, Layer *), void **out) {
    Kernel kernel = {.ort = ort, .simd = choose_simd(getenv(LEVEL))};
    if (!kernel.simd) return refuse(ort, LEVEL " names instructions that this processor has not");
    kernel.layer.together = kernel.simd->width > 8 ? kernel.simd->width : 8;
    TRY(read(ort, info, &kernel.layer));
    TRY(ort_cpu_memory(ort)(ORT_ARENA_ALLOCATOR, ORT_DEFAULT_MEMORY, &kernel.memory));
    if (!(*out = malloc(sizeof kernel))) {
        ort_release_memory(ort)(kernel.memory);
        return refuse(ort, "there is not enough memory");
    }
    memcpy(*out, &kernel, sizeof kernel);
    return NULL;
}

static void ORT_CALL destroy(void *self) {
    Kernel *kernel = self;
    ort_release_memory(kernel->ort)(kernel->memory);
    free(kernel);
}

/* One call of a kernel, as the host of what it runs. */
typedef struct {
    const Kernel *kernel;
    OrtContext *context;
    OrtAllocator *allocator;
} Call;

static void forget(Ort ort, OrtStatus *status) {
    if (status) ort_release_status(ort)(status);
}

static void *allocate(void *self, size_t bytes) {
    Call *call = self;
    void *memory = NULL;
    forget(call->kernel->ort, ort_alloc(call->kernel->ort)(call->allocator, bytes, &memory));
    return memory;
}

static void release(void *self, void *memory) {
    Call *call = self;
    forget(call->kernel->ort, ort_free(call->kernel->ort)(call->allocator, memory));
}

static void parallel(void *self, void (*work)(void *, size_t), size_t count, void *argument) {
    Call *call = self;
    OrtStatus *status = ort_parallel_for(call->kernel->ort)(call->context, work, count, 0, argument);
    if (!status) return;
    forget(call->kernel->ort, status); /* refused before it began */
    for (size_t i = 0; i < count; i++) work(argument, i);
}

static OrtStatus *make_output(Call *call, const Tensor *in, Tensor *out) {
    Ort ort = call->kernel->ort;
    OrtValue *value;
    TRY(refuse(ort, layer_output(&call->kernel->layer, in, out)));
    TRY(ort_output(ort)(call->context, 0, out->sizes, out->rank, &value));
    return ort_data(ort)(value, (void **)&out->data);
}

static OrtStatus *ORT_CALL compute_convolution(void *self, OrtContext *context) {
    const Kernel *kernel = self;
    Ort ort = kernel->ort;
    Call call = {kernel, context, NULL};
    Host host = {&call, allocate, release, parallel};
    const OrtValue *value, *added = NULL;
    Tensor in, residual, out;
    size_t inputs;
    TRY(ort_input(ort)(context, INPUT, &value));
    TRY(read_tensor(ort, value, ORT_FLOAT, &in));
    TRY(ort_input_count(ort)(context, &inputs));
    if (inputs > RESIDUAL) TRY(ort_input(ort)(context, RESIDUAL, &added));
    if (added) TRY(read_tensor(ort, added, ORT_FLOAT, &residual));
    TRY(make_output(&call, &in, &out));
    TRY(ort_allocator(ort)(context, kernel->memory, &call.allocator));
    const char *wrong = layer_run(&kernel->layer, kernel->simd, &in, added ? &residual : NULL, &out, &host);
    ort_release_allocator(ort)(call.allocator);
    return refuse(ort, wrong);
}

static OrtStatus *ORT_CALL compute_pool(void *self, OrtContext *context) {
    const Kernel *kernel = self;
    Call call = {kernel, context, NULL};
    Host host = {&call, NULL, NULL, parallel};
    const OrtValue *value;
    Tensor in, out;
    TRY(ort_input(kernel->ort)(context, INPUT, &value));
    TRY(read_tensor(kernel->ort, value, ORT_FLOAT, &in));
    TRY(make_output(&call, &in, &out));
    return refuse(kernel->ort, pool_run(&kernel->layer, kernel->simd, &in, &out, &host));
}

static OrtStatus *ORT_CALL create_convolution(const OrtOperator *op, Ort ort, const OrtInfo *info, void **out) {
    (void)op;
    return create(ort, info, read_convolution, out);
}

static OrtStatus *ORT_CALL create_pool(const OrtOperator *op, Ort ort, const OrtInfo *info, void **out) {
    (void)op;
    return create(ort, info, read_pool, out);
}

static const char *ORT_CALL convolution_name(const OrtOperator *op) { (void)op; return "SparseConv"; }
static const char *ORT_CALL pool_name(const OrtOperator *op) { (void)op; return "PackedMaxPool"; }
static const char *ORT_CALL provider(const OrtOperator *op) { (void)op; return NULL; }
static size_t ORT_CALL convolution_inputs(const OrtOperator *op) { (void)op; return INPUTS; }
static size_t ORT_CALL one(const OrtOperator *op) { (void)op; return 1; }
static int ORT_CALL float_type(const OrtOperator *op, size_t place) { (void)op, (void)place; return ORT_FLOAT; }
static int ORT_CALL required(const OrtOperator *op, size_t place) { (void)op, (void)place; return ORT_REQUIRED; }
static int ORT_CALL in_memory(const OrtOperator *op, size_t place) { (void)op, (void)place; return ORT_DEFAULT_MEMORY; }
static int ORT_CALL version_one(const OrtOperator *op) { (void)op; return 1; }

static int ORT_CALL convolution_input_type(const OrtOperator *op, size_t place) {
    (void)op;
    return place == PLACES ? ORT_UINT16 : place == ROWS ? ORT_INT32 : ORT_FLOAT;
}

static int ORT_CALL convolution_input_kind(const OrtOperator *op, size_t place) {
    (void)op;
    return place == RESIDUAL ? ORT_OPTIONAL : ORT_REQUIRED;
}

static const OrtOperator convolution = {
    .version = ORT_VERSION, .name = convolution_name, .provider = provider, .input_type = convolution_input_type,
    .input_count = convolution_inputs, .output_type = float_type, .output_count = one, .destroy = destroy,
    .input_kind = convolution_input_kind, .output_kind = required, .input_memory = in_memory,
    .create_kernel_checked = create_convolution, .compute_checked = compute_convolution,
    .start_version = version_one, .end_version = version_one,
};

static const OrtOperator pool = {
    .version = ORT_VERSION, .name = pool_name, .provider = provider, .input_type = float_type, .input_count = one,
    .output_type = float_type, .output_count = one, .destroy = destroy, .input_kind = required, .output_kind = required,
    .input_memory = in_memory, .create_kernel_checked = create_pool, .compute_checked = compute_pool,
    .start_version = version_one, .end_version = version_one,
};

/* onnxruntime keeps the domain's address in the options, and never says when it has done with it: one serves all. */
static OrtDomain *shared;

static OrtStatus *make_domain(Ort ort, OrtDomain **domain) {
    TRY(ort_create_domain(ort)("onnx_shift", domain));
    OrtStatus *status = ort_domain_add(ort)(*domain, &convolution);
    if (!status) status = ort_domain_add(ort)(*domain, &pool);
    if (status) ort_release_domain(ort)(*domain);
    return status;
}

EXPORT OrtStatus *ORT_CALL RegisterCustomOps(OrtOptions *options, const OrtBase *base) {
    Ort ort = base->get_api(ORT_VERSION);
    if (!ort) {
        /* This runtime is older than the kernels; its table still begins as it always did. */
        ort = base->get_api(1);
        return refuse(ort, "the kernels of onnx-shift need onnxruntime 1.17 or later");
    }
    OrtDomain *domain = __atomic_load_n(&shared, __ATOMIC_ACQUIRE);
    if (!domain) {
        TRY(make_domain(ort, &domain));
        OrtDomain *none = NULL;
        if (!__atomic_compare_exchange_n(&shared, &none, domain, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
            ort_release_domain(ort)(domain); /* another thread was first */
            domain = none;
        }
    }
    return ort_add_domain(ort)(options, domain);
}
