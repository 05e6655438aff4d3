// What is on a picture, by ONNX Runtime's C++ API (1.18 or later). From the folder clients of the package:
//
//  g++ -std=c++17 -O2 onnxruntime_client.cpp -o ../../client -I ORT/include -L ORT/lib -lonnxruntime -Wl,-rpath,ORT/lib
//  ../../client ../model.onnx ../../image.ppm
//
// ORT: the unpacked archive of a release of ONNX Runtime, which has headers and libraries. A PPM is made by
// `convert image.jpg -auto-orient image.ppm`.
#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "answer.hpp"

int main(int argc, char **argv) try {
    if (argc != 3) {
        std::fprintf(stderr, "usage: %s model.onnx image.ppm\n", argv[0]);
        return 2;
    }
    Input input = prepare(read_ppm(argv[2]));
    setenv("ORT_DISABLE_TELEMETRY", "1", 0);  // before there is an Env: from 1.31 on it sends events to its maker
    Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "client");
    Ort::Session session(env, argv[1], Ort::SessionOptions{});  // keep it: opening costs more than many pictures

    const std::array<std::int64_t, 4> shape{1, 3, package::HEIGHT, package::WIDTH};
    const auto type = package::TAKES_BYTES ? ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto tensor =
        Ort::Value::CreateTensor(memory, input.bytes.data(), input.bytes.size(), shape.data(), shape.size(), type);
    std::vector<const char *> names;
    for (const package::Output &output : package::OUTPUTS) names.push_back(output.name);
    auto values = session.Run(Ort::RunOptions{}, &package::INPUT, &tensor, 1, names.data(), names.size());

    Outputs outputs;
    for (std::size_t i = 0; i < values.size(); ++i) {
        const package::Output &output = package::OUTPUTS[i];
        std::vector<float> &found = outputs[output.name];
        const auto copy = [&](const auto *first) { found.assign(first, first + output.size); };
        if (output.whole_numbers)
            copy(values[i].GetTensorData<std::int32_t>());
        else
            copy(values[i].GetTensorData<float>());
    }
    print_answer(outputs, input);
    return 0;
} catch (const std::exception &error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
}
