// Context, memory, and what the host says to the device.
#include "kernels/cuda/cuda_device.hpp"

#include "kernels/cuda/hopper_products.cuh"
#include "kernels/ensure.hpp"
#include "kernels/op_checks.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace tandem::kernels::cuda {
namespace {

constexpr std::size_t ring_bytes = std::size_t{32} << 20;
constexpr std::size_t spans_ring_bytes = std::size_t{16} << 20;
constexpr std::size_t alignment = 256;
constexpr std::size_t program_ring_bytes = std::size_t{1} << 20;

std::size_t rounded(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

// Of rows that are held, rounded.
std::size_t held_bytes(const step_limits& limits) {
  if (!limits.training || !limits.rounded) return 0;
  return rounded(static_cast<std::size_t>(rounded_bytes(limits.rows, limits.widest_output)));
}

}  // namespace

void fail(cudaError_t error, const char* operation, std::int64_t rows, std::int64_t columns) {
  std::fprintf(stderr, "tandem: CUDA error %d in %s (%lld x %lld): %s\n", static_cast<int>(error),
               operation, static_cast<long long>(rows), static_cast<long long>(columns),
               cudaGetErrorString(error));
  std::fflush(stderr);
  std::abort();
}

upload_ring::upload_ring(cudaStream_t stream, std::size_t bytes) : stream_(stream), size_(bytes) {
  void* host = nullptr;
  void* device = nullptr;
  check(cudaMallocHost(&host, bytes), "pinned memory of the uploads", 1,
        static_cast<std::int64_t>(bytes));
  check(cudaMalloc(&device, bytes), "device memory of the uploads", 1,
        static_cast<std::int64_t>(bytes));
  host_ = static_cast<std::byte*>(host);
  device_ = static_cast<std::byte*>(device);
}

upload_ring::~upload_ring() {
  cudaFreeHost(host_);
  cudaFree(device_);
}

upload_ring::room upload_ring::take(std::size_t bytes) {
  const std::size_t size = rounded(bytes);
  ensure(size <= size_ / 2, "an upload the ring can hold");
  if (next_ + size > size_) {
    check(cudaStreamSynchronize(stream_), "waiting for the uploads' ring");
    next_ = 0;
  }
  const room taken{host_ + next_, device_ + next_, bytes};
  next_ += size;
  return taken;
}

void upload_ring::send(const room& filled) {
  check(cudaMemcpyAsync(filled.device, filled.host, filled.bytes, cudaMemcpyHostToDevice, stream_),
        "an upload", 1, static_cast<std::int64_t>(filled.bytes));
}

const std::byte* upload_ring::upload_bytes(std::span<const std::byte> bytes, bool quiet) {
  const room taken = take(bytes.size());
  std::memcpy(taken.host, bytes.data(), bytes.size());
  if (!quiet) send(taken);
  return taken.device;
}

std::byte* pinned_room::grown(std::size_t bytes) {
  if (bytes <= size_) return memory_;
  check(cudaFreeHost(memory_), "pinned memory");
  void* room = nullptr;
  check(cudaMallocHost(&room, bytes), "pinned memory", 1, static_cast<std::int64_t>(bytes));
  memory_ = static_cast<std::byte*>(room);
  size_ = bytes;
  return memory_;
}

namespace {

cudaStream_t new_stream(int gpu) {
  check(cudaSetDevice(gpu), "taking the GPU");
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "making a stream");
  return stream;
}

std::string name_of_gpu(int gpu) {
  cudaDeviceProp facts{};
  check(cudaGetDeviceProperties(&facts, gpu), "asking the GPU's name");
  return std::string("cuda ") + facts.name;
}

}  // namespace

cuda_device::cuda_device(const cuda_options& options)
    : gpu_(options.gpu),
      team_(options.host_cores),
      stream_(new_stream(gpu_)),
      ring_(stream_, ring_bytes),
      spans_ring_(stream_, spans_ring_bytes) {
  name_ = name_of_gpu(gpu_);
  for (auto& end : kept_up_)
    check(cudaEventCreateWithFlags(&end, cudaEventDisableTiming), "making an event");
  wgmma_ = has_wgmma(gpu_);
  check(cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, gpu_),
        "asking the GPU's size");
}

cuda_device::~cuda_device() {
  cudaSetDevice(gpu_);
  cudaStreamSynchronize(stream_);
  for (auto& [shape, program] : programs_) cudaGraphExecDestroy(program.run);
  cudaFreeHost(host_rows_);
  for (const auto end : kept_up_) cudaEventDestroy(end);
  cudaStreamDestroy(stream_);
}

void cuda_device::attach_calling_thread() {
  team_.attach_calling_thread();
  check(cudaSetDevice(gpu_), "taking the GPU");
}

void cuda_device::for_each(std::int64_t count, function_ref<void(std::int64_t)> f) {
  if (count < 2 || team_.size() == 1) {
    for (std::int64_t i = 0; i < count; ++i) f(i);
    return;
  }
  team_.run([&](int thread) {
    for (std::int64_t i = thread; i < count; i += team_.size()) f(i);
  });
}

std::size_t cuda_device::workspace_bytes(const step_limits& limits) const {
  return std::max({product_workspace(limits), attention_workspace(limits), expert_workspace(limits),
                   row_workspace(limits)}) +
         held_bytes(limits) + alignment;
}

void cuda_device::bind_workspace(std::span<std::byte> memory, const step_limits& limits) {
  require(checks::bind_workspace(memory.size(), workspace_bytes(limits)));
  const bool same = memory.data() == workspace_owner_;
  workspace_owner_ = memory.data();
  limits_ = limits;
  workspace_ = memory.first(memory.size() - held_bytes(limits));
  held_room_ = workspace_.data() + workspace_.size();
  held_rounded_ = held_rounded_ && same;
  scratch_used_ = 0;
}

void cuda_device::hold_rows(rows_in x_TX) {
  held_ = x_TX;
  held_rounded_ = false;
}

std::byte* cuda_device::scratch_bytes(std::size_t bytes) {
  const std::size_t size = rounded(bytes);
  ensure(scratch_used_ + size <= workspace_.size(), "the workspace has no room left");
  std::byte* const room = workspace_.data() + scratch_used_;
  scratch_used_ += size;
  return room;
}

void cuda_device::write(std::span<const std::byte> host, std::byte* device) {
  check(cudaMemcpyAsync(device, host.data(), host.size(), cudaMemcpyHostToDevice, stream_),
        "writing memory", 1, std::ssize(host));
  check(cudaStreamSynchronize(stream_), "writing memory", 1, std::ssize(host));
}

void cuda_device::read(std::span<const std::byte> device, std::byte* host) {
  check(cudaMemcpyAsync(host, device.data(), device.size(), cudaMemcpyDeviceToHost, stream_),
        "reading memory", 1, std::ssize(device));
  check(cudaStreamSynchronize(stream_), "reading memory", 1, std::ssize(device));
}

void cuda_device::copy_rows(rows_in from_TX, rows_out to_TX) {
  require(checks::copy_rows(from_TX, to_TX));
  if (from_TX.rows == 0 || from_TX.columns == 0 || refilling()) return;
  const auto bytes = [](std::int64_t floats) {
    return static_cast<std::size_t>(floats) * sizeof(float);
  };
  check(cudaMemcpy2DAsync(to_TX.data, bytes(to_TX.stride), from_TX.data, bytes(from_TX.stride),
                          bytes(from_TX.columns), static_cast<std::size_t>(from_TX.rows),
                          cudaMemcpyDefault, stream_),
        "copying rows", from_TX.rows, from_TX.columns);
}

void cuda_device::copy(std::span<const std::byte> from, std::byte* to) {
  // From another GPU or from the host as well: the driver knows whose memory an address is.
  check(cudaMemcpyAsync(to, from.data(), from.size(), cudaMemcpyDefault, stream_), "copying memory",
        1, std::ssize(from));
}

rows_out cuda_device::to_host(rows_out x) {
  const auto bytes = static_cast<std::size_t>(x.rows * x.columns) * sizeof(float);
  if (bytes > host_rows_size_) {
    check(cudaStreamSynchronize(stream_), "waiting for rows");
    check(cudaFreeHost(host_rows_), "rows for the host");
    void* room = nullptr;
    check(cudaMallocHost(&room, bytes), "rows for the host", x.rows, x.columns);
    host_rows_ = static_cast<std::byte*>(room);
    host_rows_size_ = bytes;
  }
  const auto width = static_cast<std::size_t>(x.columns) * sizeof(float);
  if (bytes > 0)
    check(cudaMemcpy2DAsync(host_rows_, width, x.data,
                            static_cast<std::size_t>(x.stride) * sizeof(float), width,
                            static_cast<std::size_t>(x.rows), cudaMemcpyDeviceToHost, stream_),
          "rows to the host", x.rows, x.columns);
  check(cudaStreamSynchronize(stream_), "rows to the host", x.rows, x.columns);
  return {reinterpret_cast<float*>(host_rows_), x.rows, x.columns};
}

void cuda_device::keep_up() {
  const auto mine = kept_up_[pieces_ % 2];
  const auto before = kept_up_[(pieces_ + 1) % 2];
  check(cudaEventRecord(mine, stream_), "marking a piece's end");
  if (pieces_ > 0) check(cudaEventSynchronize(before), "waiting for a piece");
  ++pieces_;
}

void cuda_device::finish() { check(cudaStreamSynchronize(stream_), "finishing"); }

void cuda_device::fill_zero(std::span<std::byte> memory) {
  check(cudaMemsetAsync(memory.data(), 0, memory.size(), stream_), "filling with zeros", 1,
        std::ssize(memory));
}

const device_spans& cuda_device::spans_of(std::span<const attention_span> spans) {
  // One upload: the spans, the span of each row, and the blocks, laid out on the host first.
  std::int64_t rows = 0;
  std::int64_t blocks = 0;
  std::int32_t most_rows = 0;
  std::int32_t most_positions = 0;
  const auto blocks_of = [](const attention_span& span) {
    return (span.first_position + span.row_count + kv_block_positions - 1) / kv_block_positions;
  };
  for (const auto& span : spans) {
    rows += span.row_count;
    blocks += blocks_of(span);
    most_rows = std::max(most_rows, span.row_count);
    most_positions = std::max(most_positions, span.first_position + span.row_count);
  }
  const std::size_t span_bytes = spans.size() * sizeof(device_span);
  const std::size_t row_bytes = static_cast<std::size_t>(rows) * sizeof(std::int32_t);
  if (program_ != nullptr) {  // every run of it brings as many bytes
    ensure(most_positions <= program_positions_, "positions within the program's bound");
    most_positions = static_cast<std::int32_t>(program_positions_);
    blocks =
        std::ssize(spans) * ((program_positions_ + kv_block_positions - 1) / kv_block_positions);
  }
  const std::size_t block_bytes = static_cast<std::size_t>(blocks) * sizeof(std::int32_t);
  spans_next_.assign(span_bytes + row_bytes + block_bytes, std::byte{0});
  auto* const laid = reinterpret_cast<device_span*>(spans_next_.data());
  auto* const of_row = reinterpret_cast<std::int32_t*>(spans_next_.data() + span_bytes);
  auto* const listed = reinterpret_cast<std::int32_t*>(spans_next_.data() + span_bytes + row_bytes);
  std::int32_t block = 0;
  for (std::size_t i = 0; i < spans.size(); ++i) {
    const auto& span = spans[i];
    laid[i] = {span.first_row, span.row_count, span.first_position, block};
    ensure(span.first_row >= 0 && span.first_row + std::int64_t{span.row_count} <= rows,
           "spans that cover the rows");
    std::fill_n(of_row + span.first_row, span.row_count, static_cast<std::int32_t>(i));
    const auto count = blocks_of(span);
    std::copy_n(span.blocks, count, listed + block);
    block += count;
  }
  if (spans_.spans != nullptr && spans_next_ == spans_key_) return spans_;
  const auto* const there = program_ == nullptr
                                ? spans_ring_.upload(std::span<const std::byte>(spans_next_))
                                : upload(std::span<const std::byte>(spans_next_));
  spans_ = {reinterpret_cast<const device_span*>(there),
            reinterpret_cast<const std::int32_t*>(there + span_bytes + row_bytes),
            reinterpret_cast<const std::int32_t*>(there + span_bytes),
            std::ssize(spans),
            rows,
            most_rows,
            most_positions};
  std::swap(spans_key_, spans_next_);
  return spans_;
}

bool cuda_device::begin_program(const program_shape& shape) {
  ensure(program_ == nullptr, "one program at a time");
  // Few at once, so that shapes that come no more do not keep memory for ever.
  constexpr std::size_t most_programs = 64;
  auto found = programs_.find(shape);
  if (found == programs_.end()) {
    // Making one takes as long as a few runs: only what comes again is worth it.
    constexpr int worth_making = 3;
    constexpr std::size_t most_shapes = 4096;
    if (shapes_seen_.size() >= most_shapes) shapes_seen_.clear();
    if (++shapes_seen_[shape] < worth_making) return false;
    if (programs_.size() >= most_programs) forget_programs();
  }
  spans_.spans = nullptr;
  program_positions_ = shape.positions;
  refilling_ = found != programs_.end();
  if (refilling_) {
    program_ = &found->second;
    program_->ring->rewind();
    check(cudaStreamSynchronize(stream_), "waiting for a program's last run");
    return true;
  }
  const std::size_t spans =
      static_cast<std::size_t>(shape.rows) *
      (static_cast<std::size_t>(shape.positions) / kv_block_positions * 4 + 64);
  auto& made = programs_[shape];
  made.ring = std::make_unique<upload_ring>(stream_, 2 * (spans + program_ring_bytes));
  program_ = &made;
  check(cudaStreamSynchronize(stream_), "before a program is made");
  check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal), "making a program",
        shape.rows, shape.positions);
  return true;
}

void cuda_device::end_program() {
  ensure(program_ != nullptr, "the end of a program that was begun");
  if (!refilling_) {
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(stream_, &graph), "making a program");
    check(cudaGraphInstantiate(&program_->run, graph, 0), "making a program");
    check(cudaGraphDestroy(graph), "making a program");
  }
  check(cudaGraphLaunch(program_->run, stream_), "running a program");
  program_ = nullptr;
  refilling_ = false;
  spans_.spans = nullptr;
}

void cuda_device::forget_programs() {
  check(cudaStreamSynchronize(stream_), "before programs are forgotten");
  for (auto& [shape, program] : programs_) cudaGraphExecDestroy(program.run);
  programs_.clear();
}

void read_memory(int gpu, std::span<const std::byte> device, std::byte* host) {
  check(cudaSetDevice(gpu), "taking the GPU");
  check(cudaMemcpy(host, device.data(), device.size(), cudaMemcpyDeviceToHost),
        "reading a GPU's memory", 1, std::ssize(device));
}

void write_memory(int gpu, std::span<const std::byte> host, std::byte* device) {
  check(cudaSetDevice(gpu), "taking the GPU");
  check(cudaMemcpy(device, host.data(), host.size(), cudaMemcpyHostToDevice),
        "writing a GPU's memory", 1, std::ssize(host));
}

std::unique_ptr<backend> make_backend(const cuda_options& options) {
  return std::make_unique<cuda_device>(options);
}

}  // namespace tandem::kernels::cuda
