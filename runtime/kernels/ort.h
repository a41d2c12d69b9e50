/* The few entries of onnxruntime's C interface that the kernels use.
 *
 * The interface is a table of functions that only ever grows at its end, so an entry is known by its place. These are
 * facts about the binary interface, valid from version 17 of it (onnxruntime 1.17); `RegisterCustomOps` asks for that
 * version and refuses a runtime that has none. */
#ifndef ONNX_SHIFT_ORT_H
#define ONNX_SHIFT_ORT_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && !defined(_WIN64)
#define ORT_CALL __stdcall
#else
#define ORT_CALL
#endif

enum { ORT_VERSION = 17, ORT_INVALID_ARGUMENT = 2, ORT_FLOAT = 1, ORT_UINT16 = 4, ORT_INT32 = 6 };
enum { ORT_REQUIRED = 0, ORT_OPTIONAL = 1, ORT_ARENA_ALLOCATOR = 1, ORT_DEFAULT_MEMORY = 0 };

typedef void *const *Ort; /* the table */
typedef struct OrtStatus OrtStatus;
typedef struct OrtValue OrtValue;
typedef struct OrtInfo OrtInfo; /* a node, while its kernel is created */
typedef struct OrtContext OrtContext; /* a node, while it is computed */
typedef struct OrtShape OrtShape;
typedef struct OrtMemory OrtMemory;
typedef struct OrtAllocator OrtAllocator;
typedef struct OrtDomain OrtDomain;
typedef struct OrtOptions OrtOptions;

typedef struct {
    Ort(ORT_CALL *get_api)(uint32_t version);
    const char *(ORT_CALL *version)(void);
} OrtBase;

#define ORT_ENTRY(place, name, result, ...) \
    static inline result (ORT_CALL *name(Ort ort))(__VA_ARGS__) { return (result(ORT_CALL *)(__VA_ARGS__))ort[place]; }

ORT_ENTRY(0, ort_create_status, OrtStatus *, int code, const char *message)
ORT_ENTRY(26, ort_create_domain, OrtStatus *, const char *name, OrtDomain **)
ORT_ENTRY(27, ort_domain_add, OrtStatus *, OrtDomain *, const void *operator_)
ORT_ENTRY(28, ort_add_domain, OrtStatus *, OrtOptions *, OrtDomain *)
ORT_ENTRY(51, ort_data, OrtStatus *, OrtValue *, void **)
ORT_ENTRY(60, ort_element_type, OrtStatus *, const OrtShape *, int *)
ORT_ENTRY(61, ort_rank, OrtStatus *, const OrtShape *, size_t *)
ORT_ENTRY(62, ort_sizes, OrtStatus *, const OrtShape *, int64_t *, size_t)
ORT_ENTRY(65, ort_shape, OrtStatus *, const OrtValue *, OrtShape **)
ORT_ENTRY(69, ort_cpu_memory, OrtStatus *, int allocator_type, int memory_type, OrtMemory **)
ORT_ENTRY(75, ort_alloc, OrtStatus *, OrtAllocator *, size_t, void **)
ORT_ENTRY(76, ort_free, OrtStatus *, OrtAllocator *, void *)
ORT_ENTRY(85, ort_attribute_float, OrtStatus *, const OrtInfo *, const char *name, float *)
ORT_ENTRY(86, ort_attribute_int, OrtStatus *, const OrtInfo *, const char *name, int64_t *)
ORT_ENTRY(88, ort_input_count, OrtStatus *, const OrtContext *, size_t *)
ORT_ENTRY(90, ort_input, OrtStatus *, const OrtContext *, size_t, const OrtValue **)
ORT_ENTRY(91, ort_output, OrtStatus *, OrtContext *, size_t, const int64_t *, size_t, OrtValue **)
ORT_ENTRY(93, ort_release_status, void, OrtStatus *)
ORT_ENTRY(94, ort_release_memory, void, OrtMemory *)
ORT_ENTRY(99, ort_release_shape, void, OrtShape *)
ORT_ENTRY(101, ort_release_domain, void, OrtDomain *)
ORT_ENTRY(132, ort_release_allocator, void, OrtAllocator *)
ORT_ENTRY(163, ort_attribute_ints, OrtStatus *, const OrtInfo *, const char *name, int64_t *, size_t *)
ORT_ENTRY(249, ort_constant, OrtStatus *, const OrtInfo *, size_t, int *is_constant, const OrtValue **)
ORT_ENTRY(253, ort_allocator, OrtStatus *, const OrtContext *, const OrtMemory *, OrtAllocator **)
ORT_ENTRY(274, ort_parallel_for, OrtStatus *, const OrtContext *, void (*)(void *, size_t), size_t total, size_t batches, void *)

/* An operator: its version says which of the callbacks onnxruntime looks at. Those it has no need of are NULL. */
typedef struct OrtOperator OrtOperator;
struct OrtOperator {
    uint32_t version;
    void *(ORT_CALL *create_kernel)(const OrtOperator *, Ort, const OrtInfo *);
    const char *(ORT_CALL *name)(const OrtOperator *);
    const char *(ORT_CALL *provider)(const OrtOperator *);
    int (ORT_CALL *input_type)(const OrtOperator *, size_t);
    size_t (ORT_CALL *input_count)(const OrtOperator *);
    int (ORT_CALL *output_type)(const OrtOperator *, size_t);
    size_t (ORT_CALL *output_count)(const OrtOperator *);
    void (ORT_CALL *compute)(void *, OrtContext *);
    void (ORT_CALL *destroy)(void *);
    int (ORT_CALL *input_kind)(const OrtOperator *, size_t);
    int (ORT_CALL *output_kind)(const OrtOperator *, size_t);
    int (ORT_CALL *input_memory)(const OrtOperator *, size_t);
    int (ORT_CALL *variadic[4])(const OrtOperator *);
    OrtStatus *(ORT_CALL *create_kernel_checked)(const OrtOperator *, Ort, const OrtInfo *, void **);
    OrtStatus *(ORT_CALL *compute_checked)(void *, OrtContext *);
    OrtStatus *(ORT_CALL *infer_shape)(const OrtOperator *, void *);
    int (ORT_CALL *start_version)(const OrtOperator *);
    int (ORT_CALL *end_version)(const OrtOperator *);
    void *in_place[4];
};

#endif
