/* A compiled model in plain onnxruntime, in C. In C++, Ort::SessionOptions::RegisterCustomOpsLibrary is the one line.
 *
 *   onnx-shift compile sparse.onnx -o fast.onnx
 *   cc kernels.c -I FOLDER_OF_onnxruntime_c_api.h -L FOLDER_OF_libonnxruntime -lonnxruntime -o kernels
 *   ./kernels "$(python -c 'from onnx_shift.runtime import kernels; print(kernels.library())')" fast.onnx input logits 1 3 32 32
 */
#include "onnxruntime_c_api.h"

#include <stdio.h>
#include <stdlib.h>

static const OrtApi *ort;

static void check(OrtStatus *status) {
    if (!status) return;
    fprintf(stderr, "error: %s\n", ort->GetErrorMessage(status));
    exit(1);
}

int main(int count, char **arguments) {
    if (count < 6 || count > 13) {
        fprintf(stderr, "usage: %s LIBRARY MODEL INPUT OUTPUT SIZE...\n", arguments[0]);
        return 2;
    }
    ort = OrtGetApiBase()->GetApi(17); /* what the kernels need: onnxruntime 1.17 */
    if (!ort) {
        fprintf(stderr, "error: onnxruntime %s is too old\n", OrtGetApiBase()->GetVersionString());
        return 1;
    }
    OrtEnv *environment;
    OrtSessionOptions *options;
    OrtSession *session;
    check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "example", &environment));
    check(ort->CreateSessionOptions(&options));
    check(ort->RegisterCustomOpsLibrary_V2(options, arguments[1])); /* the one line that is ours */
    check(ort->CreateSession(environment, arguments[2], options, &session));

    int64_t sizes[8];
    size_t rank = (size_t)count - 5, elements = 1;
    for (size_t i = 0; i < rank; i++) elements *= (size_t)(sizes[i] = atoll(arguments[i + 5]));
    float *image = malloc(elements * sizeof *image);
    if (!image) return 1;
    for (size_t i = 0; i < elements; i++) image[i] = 1;
    OrtMemoryInfo *memory;
    OrtValue *input, *output = NULL;
    check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    check(ort->CreateTensorWithDataAsOrtValue(memory, image, elements * sizeof *image, sizes, rank,
                                              ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, &input));
    const char *input_name = arguments[3], *output_name = arguments[4];
    check(ort->Run(session, NULL, &input_name, (const OrtValue *const *)&input, 1, &output_name, 1, &output));

    OrtTensorTypeAndShapeInfo *shape;
    float *values;
    check(ort->GetTensorTypeAndShape(output, &shape));
    check(ort->GetTensorShapeElementCount(shape, &elements));
    check(ort->GetTensorMutableData(output, (void **)&values));
    for (size_t i = 0; i < elements; i++) printf("%.6g\n", values[i]);

    ort->ReleaseTensorTypeAndShapeInfo(shape);
    ort->ReleaseValue(output);
    ort->ReleaseValue(input);
    ort->ReleaseMemoryInfo(memory);
    ort->ReleaseSession(session);
    ort->ReleaseSessionOptions(options);
    ort->ReleaseEnv(environment);
    free(image);
    return 0;
}
