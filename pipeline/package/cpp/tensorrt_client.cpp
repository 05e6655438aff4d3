// What is on a picture, by an engine that `build-engine` has built on this very GPU, TensorRT 10.3 to 11:
//
//  g++ -std=c++17 -O2 tensorrt_client.cpp -o ../../client -I CUDA/include -L CUDA/lib64 -lnvinfer -lcudart
//  ../../client ../engines/model.fp16.plan ../../image.ppm
//
// CUDA: its toolkit, for example /usr/local/cuda; TensorRT's headers and libraries where its packages put them. A PPM
// is made by `convert image.jpg -auto-orient image.ppm`. An engine can carry code: load none from elsewhere.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <exception>
#include <iterator>
#include <memory>

#include "answer.hpp"

class Logger : public nvinfer1::ILogger {
    void log(Severity severity, const char *text) noexcept override {
        if (severity <= Severity::kWARNING) std::fprintf(stderr, "%s\n", text);
    }
};

template <typename T>
T *needed(T *made, const char *what) {
    if (!made) throw std::runtime_error(std::string("TensorRT made no ") + what + "; the lines above say why");
    return made;
}

void need(bool done, const std::string &what) {
    if (!done) throw std::runtime_error("TensorRT refused " + what + "; the lines above say why");
}

void check(cudaError_t status) {
    if (status != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(status));
}

struct Buffer {  // on the GPU
    void *data = nullptr;
    std::size_t size;
    explicit Buffer(std::size_t bytes) : size(bytes) { check(cudaMalloc(&data, size)); }
    Buffer(const Buffer &) = delete;
    ~Buffer() { cudaFree(data); }
};

int main(int argc, char **argv) try {
    if (argc != 3) {
        std::fprintf(stderr, "usage: %s engine.plan image.ppm\n", argv[0]);
        return 2;
    }
    const Input input = prepare(read_ppm(argv[2]));
    std::ifstream file(argv[1], std::ios::binary);
    const std::string plan{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    if (plan.empty()) throw std::runtime_error(std::string(argv[1]) + ": cannot be read, or is empty");

    Logger logger;
    std::unique_ptr<nvinfer1::IRuntime> runtime(needed(nvinfer1::createInferRuntime(logger), "runtime"));
    // Of an engine built with export_tensorrt.version_compatible: runtime->setEngineHostCodeAllowed(true);
    std::unique_ptr<nvinfer1::ICudaEngine> engine(
        needed(runtime->deserializeCudaEngine(plan.data(), plan.size()), "engine of this file"));
    std::unique_ptr<nvinfer1::IExecutionContext> context(needed(engine->createExecutionContext(), "context"));

    const auto give = [&](const char *name, Buffer &buffer, nvinfer1::DataType type) {
        need(engine->getTensorDataType(name) == type, std::string("the type that this package has of ") + name);
        need(context->setTensorAddress(name, buffer.data), std::string("memory for ") + name);
    };
    cudaStream_t stream;
    check(cudaStreamCreate(&stream));
    Buffer image(input.bytes.size());
    give(package::INPUT, image, package::TAKES_BYTES ? nvinfer1::DataType::kUINT8 : nvinfer1::DataType::kFLOAT);
    need(context->setInputShape(package::INPUT, nvinfer1::Dims4{1, 3, package::HEIGHT, package::WIDTH}),
         "a batch of 1");
    std::vector<std::unique_ptr<Buffer>> buffers;
    for (const package::Output &output : package::OUTPUTS) {  // float32 and int32 have 4 bytes each
        buffers.push_back(std::make_unique<Buffer>(4 * output.size));
        give(output.name, *buffers.back(),
             output.whole_numbers ? nvinfer1::DataType::kINT32 : nvinfer1::DataType::kFLOAT);
    }
    check(cudaMemcpyAsync(image.data, input.bytes.data(), image.size, cudaMemcpyHostToDevice, stream));
    need(context->enqueueV3(stream), "to run");
    std::vector<std::vector<std::uint8_t>> bytes;
    for (const auto &buffer : buffers) {
        bytes.emplace_back(buffer->size);
        check(cudaMemcpyAsync(bytes.back().data(), buffer->data, buffer->size, cudaMemcpyDeviceToHost, stream));
    }
    check(cudaStreamSynchronize(stream));
    check(cudaStreamDestroy(stream));

    Outputs outputs;
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        const package::Output &output = package::OUTPUTS[i];
        std::vector<float> &found = outputs[output.name];
        std::vector<std::int32_t> numbers(output.whole_numbers ? output.size : 0);
        found.resize(output.size);
        void *const place = output.whole_numbers ? static_cast<void *>(numbers.data()) : found.data();
        std::memcpy(place, bytes[i].data(), bytes[i].size());
        if (output.whole_numbers) found.assign(numbers.begin(), numbers.end());
    }
    print_answer(outputs, input);
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
}
