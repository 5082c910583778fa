#include "kernels/cuda/neighbours.hpp"

#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/cuda/nccl.hpp"

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include <array>
#include <cstdint>
#include <filesystem>

namespace tandem::kernels::cuda {
namespace {

// A library that is open as long as this lives.
class opened {
 public:
  explicit opened(const char* name) : library_(dlopen(name, RTLD_NOW | RTLD_LOCAL)) {}
  ~opened() {
    if (library_ != nullptr) dlclose(library_);
  }
  opened(const opened&) = delete;
  opened& operator=(const opened&) = delete;

  explicit operator bool() const { return library_ != nullptr; }
  template <class Function>
  bool find(const char* name, Function& function) const {
    function = reinterpret_cast<Function>(dlsym(library_, name));
    return function != nullptr;
  }

 private:
  void* library_;
};

std::string name_of(const gpu_facts& gpu) { return "cuda:" + std::to_string(gpu.index); }

void add(std::string& list, const std::string& words) {
  if (!list.empty()) list += "; ";
  list += words;
}

finding look_for_nccl() {
  const auto facts = nccl_survey();
  if (!facts.why_not.empty()) return {{}, facts.why_not};
  return {facts.version + ", " + facts.path, {}};
}

finding look_for_cudnn() {
  const opened library("libcudnn.so.9");
  std::size_t (*version)() = nullptr;
  if (!library || !library.find("cudnnGetVersion", version))
    return {{}, "libcudnn.so.9 is not found; nothing here needs it"};
  const std::size_t number = version();
  return {std::to_string(number / 10'000) + "." + std::to_string(number / 100 % 100) + "." +
              std::to_string(number % 100) + "; nothing here uses it",
          {}};
}

// How many links of each GPU are up, by NVML; empty where it does not tell.
std::string links_by_nvml(const gpu_survey& gpus) {
  using device = void*;
  const opened library("libnvidia-ml.so.1");
  int (*begin)() = nullptr;
  int (*end)() = nullptr;
  int (*find_device)(const char*, device*) = nullptr;
  int (*link_state)(device, unsigned, unsigned*) = nullptr;
  if (!library || !library.find("nvmlInit_v2", begin) || !library.find("nvmlShutdown", end) ||
      !library.find("nvmlDeviceGetHandleByPciBusId_v2", find_device) ||
      !library.find("nvmlDeviceGetNvLinkState", link_state) || begin() != 0)
    return {};
  std::string told;
  for (const auto& gpu : gpus.gpus) {
    std::array<char, 32> bus{};
    device found = nullptr;
    if (cudaDeviceGetPCIBusId(bus.data(), bus.size(), gpu.index) != cudaSuccess ||
        find_device(bus.data(), &found) != 0)
      continue;
    constexpr unsigned most_links = 36;
    int up = 0;
    for (unsigned link = 0; link < most_links; ++link) {
      unsigned active = 0;
      if (link_state(found, link, &active) == 0 && active != 0) ++up;
    }
    if (up > 0) add(told, name_of(gpu) + " has " + std::to_string(up) + " links");
  }
  end();
  return told;
}

// Pairs that reach each other's memory, by NVLink or by PCIe.
std::string reach_of_pairs(const gpu_survey& gpus) {
  std::string told;
  for (const auto& a : gpus.gpus) {
    for (const auto& b : gpus.gpus) {
      int reaches = 0;
      if (b.index <= a.index ||
          cudaDeviceCanAccessPeer(&reaches, a.index, b.index) != cudaSuccess || reaches == 0)
        continue;
      add(told, name_of(a) + " and " + name_of(b) + " reach each other's memory");
    }
  }
  return told;
}

finding look_for_nvlink(const gpu_survey& gpus) {
  if (gpus.gpus.empty()) return {{}, "there is no GPU"};
  const std::string links = links_by_nvml(gpus);
  const std::string pairs = reach_of_pairs(gpus);
  if (links.empty())
    return {{}, pairs.empty() ? "no GPU has a link that is up" : "no link is up; by PCIe " + pairs};
  return {pairs.empty() ? links : links + "; " + pairs, {}};
}

bool says_dma_buf(int index) {
  const opened library("libcuda.so.1");
  decltype(&cuInit) begin = nullptr;
  decltype(&cuDeviceGet) get = nullptr;
  decltype(&cuDeviceGetAttribute) ask = nullptr;
  CUdevice device = 0;
  int yes = 0;
  return library && library.find("cuInit", begin) && library.find("cuDeviceGet", get) &&
         library.find("cuDeviceGetAttribute", ask) && begin(0) == CUDA_SUCCESS &&
         get(&device, index) == CUDA_SUCCESS &&
         ask(&yes, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED, device) == CUDA_SUCCESS && yes != 0;
}

finding look_for_rdma(const gpu_survey& gpus) {
  if (gpus.gpus.empty()) return {{}, "there is no GPU"};
  std::error_code none;
  const std::filesystem::path cards = "/sys/class/infiniband";
  if (!std::filesystem::is_directory(cards, none) || std::filesystem::is_empty(cards, none))
    return {{}, "there is no network card that could reach a GPU's memory (/sys/class/infiniband)"};
  std::string ways;
  if (std::filesystem::is_directory("/sys/module/nvidia_peermem", none))
    add(ways, "nvidia_peermem");
  if (says_dma_buf(gpus.gpus.front().index)) add(ways, "dma-buf");
  if (ways.empty())
    return {{}, "neither dma-buf nor nvidia_peermem is there: modprobe nvidia_peermem"};
  return {ways, {}};
}

}  // namespace

gpu_neighbours look_around() {
  const auto gpus = survey();
  return {look_for_nccl(), look_for_cudnn(), look_for_nvlink(gpus), look_for_rdma(gpus)};
}

}  // namespace tandem::kernels::cuda
