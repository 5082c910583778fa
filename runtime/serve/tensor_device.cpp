#include "runtime/serve/tensor_device.hpp"

#include "kernels/cuda/nccl.hpp"
#include "kernels/local_collective.hpp"
#include "runtime/log.hpp"
#include "runtime/serve/backend_device.hpp"
#include "runtime/serve/rank_threads.hpp"
#include "runtime/train/checkpoint.hpp"
#include "runtime/train/named_tensors.hpp"
#include "runtime/train/rank_memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <functional>
#include <optional>
#include <span>
#include <utility>

namespace tandem::serve {
namespace {

// A version on its way to the ranks, on a line of 64.
class host_bytes {
 public:
  explicit host_bytes(std::size_t size)
      : lines_((size + sizeof(line) - 1) / sizeof(line)), size_(size) {}
  std::byte* data() { return lines_.front().bytes.data(); }
  std::size_t size() const { return size_; }
  std::span<std::byte> all() { return {data(), size_}; }
  std::span<float> floats() { return {reinterpret_cast<float*>(data()), size_ / sizeof(float)}; }

 private:
  struct alignas(64) line {
    std::array<std::byte, 64> bytes;
  };
  std::vector<line> lines_;
  std::size_t size_;
};

void add_to(train::memory_plan& sum, const train::memory_plan& more) {
  sum.parameters += more.parameters;
  sum.gradients += more.gradients;
  sum.optimizer += more.optimizer;
  sum.activations += more.activations;
  sum.workspace += more.workspace;
}

class tensor_device final : public device {
 public:
  explicit tensor_device(const device_spec& spec);
  ~tensor_device() override;

  void attach_calling_thread() override { ranks_.front()->attach_calling_thread(); }
  device_facts facts() const override;

  result<loaded_model> load(const load_order& order) override;
  void unload() override {
    on_each([](backend_device& rank, int) { rank.unload(); });
  }

  result<void> begin(step_plan plan) override;
  bool advance() override {
    return all_advance([](backend_device& rank) { return rank.advance(); });
  }
  step_result finish() override;
  void reset() override {
    on_each([](backend_device& rank, int) { rank.reset(); });
  }

  result<device_facts> add_variant(variant_id id, const variant& what) override;
  void remove_variant(variant_id id) override {
    on_each([&](backend_device& rank, int) { rank.remove_variant(id); });
  }
  result<variant> load_variant(const std::string& checkpoint, std::uint64_t version,
                               const pause_point& pause) override;

  result<train::opened> open_training(const train::open_order& order,
                                      const pause_point& pause) override;
  void join_training(const std::string&,
                     std::vector<std::shared_ptr<train::trainer_memory>>) override {}
  result<void> begin_training(train::order what) override;
  bool advance_training() override {
    return all_advance([](backend_device& rank) { return rank.advance_training(); });
  }
  result<train::outcome> finish_training() override;
  void drop_training() override {
    on_each([](backend_device& rank, int) { rank.drop_training(); });
  }
  void close_training(const std::string& job) override {
    on_each([&](backend_device& rank, int) { rank.close_training(job); });
  }

 private:
  void meet(bool gpus);
  // Each on its own thread; when one is lost, all are.
  template <class Work>
  void on_each(const Work& work) {
    const auto of_rank = [&](int rank) { work(*ranks_[static_cast<std::size_t>(rank)], rank); };
    threads_.run(of_rank, [this] {
      if (local_) local_->give_up();
    });
  }
  // A piece of each; whether there are more.
  template <class Work>
  bool all_advance(const Work& work) {
    bool more = false;
    on_each([&](backend_device& rank, int index) {
      const bool goes_on = work(rank);
      if (index == 0) more = goes_on;
    });
    return more;
  }
  // Likewise; the first one's answer, or the first refusal.
  template <class Answer>
  result<std::vector<Answer>> answers(
      const std::function<result<Answer>(backend_device&, int)>& ask);

  result<variant> load_weights(const std::string& checkpoint, const model::model_config& config,
                               std::string_view format, std::uint64_t version,
                               const pause_point& pause);
  result<variant> split_adapter(const model::adapter_layout& layout, std::span<std::byte> bytes,
                                std::uint64_t version);
  result<train::opened> open_ranks(const train::open_order& order, const pause_point& pause);
  // What all of them say to an order; the first one's answer.
  template <class Work>
  result<void> all_begin(const Work& work) {
    std::vector<result<void>> began(ranks_.size());
    on_each([&](backend_device& rank, int index) {
      began[static_cast<std::size_t>(index)] = work(rank);
    });
    for (const auto& one : began)
      ensure(one.has_value() == began.front().has_value(), "ranks that judge an order alike");
    return began.front();
  }

  std::string name_;
  // The ranks go first, each on its thread.
  rank_threads threads_;
  std::vector<std::unique_ptr<backend_device>> ranks_;
  std::vector<std::unique_ptr<kernels::collective>>
      nccl_;                                     // of GPUs, where it is found; else empty
  std::unique_ptr<kernels::local_group> local_;  // then this
};

tensor_device::tensor_device(const device_spec& spec)
    : name_(spec.name), threads_(static_cast<int>(spec.ranks.size())), ranks_(spec.ranks.size()) {
  threads_.run(
      [&](int rank) {
        const auto index = static_cast<std::size_t>(rank);
        ranks_[index] = make_plain_device(spec.ranks[index]);
        if (rank > 0) ranks_[index]->attach_calling_thread();
      },
      [] {});
  meet(spec.gpu >= 0);
}

tensor_device::~tensor_device() {
  threads_.run(
      [&](int rank) {
        const auto index = static_cast<std::size_t>(rank);
        if (!nccl_.empty()) nccl_[index].reset();
        ranks_[index].reset();
      },
      [] {});
}

void tensor_device::meet(bool gpus) {
  std::vector<kernels::backend*> backends;
  for (const auto& rank : ranks_) backends.push_back(&rank->backend());
  if (gpus) {
    auto found = kernels::cuda::make_nccl_group(backends);
    nccl_ = std::move(found.ranks);
    if (!found.why_not.empty())
      log_warning("device {}: its GPUs exchange by copies, without NCCL: {}", name_, found.why_not);
  }
  if (nccl_.empty()) local_ = std::make_unique<kernels::local_group>(std::move(backends));
  for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
    const auto number = static_cast<int>(rank);
    ranks_[rank]->become({number, static_cast<int>(ranks_.size())},
                         nccl_.empty() ? local_->of(number) : *nccl_[rank]);
  }
}

device_facts tensor_device::facts() const {
  auto all = ranks_.front()->facts();
  all.name = name_;
  for (std::size_t rank = 1; rank < ranks_.size(); ++rank) {
    const auto one = ranks_[rank]->facts();
    all.threads += one.threads;
    all.memory_capacity += one.memory_capacity;
    for (std::size_t i = 0; i < memory::owner_count; ++i)
      all.memory_by_owner[i] += one.memory_by_owner[i];
  }
  return all;
}

template <class Answer>
result<std::vector<Answer>> tensor_device::answers(
    const std::function<result<Answer>(backend_device&, int)>& ask) {
  std::vector<std::optional<result<Answer>>> told(ranks_.size());
  on_each([&](backend_device& rank, int index) {
    told[static_cast<std::size_t>(index)].emplace(ask(rank, index));
  });
  std::vector<Answer> all;
  for (auto& one : told) {
    if (!*one) return one->error();
    all.push_back(**std::move(one));
  }
  return all;
}

result<loaded_model> tensor_device::load(const load_order& order) {
  unload();
  auto choices =
      answers<load_choice>([&](backend_device& rank, int) { return rank.choose(order); });
  if (!choices) return choices.error();
  auto agreed = choices->front().limits;
  for (const auto& choice : *choices) {
    agreed.context_length = std::min(agreed.context_length, choice.limits.context_length);
    agreed.kv_blocks = std::min(agreed.kv_blocks, choice.limits.kv_blocks);
  }
  auto loaded = answers<loaded_model>([&](backend_device& rank, int index) {
    auto& choice = (*choices)[static_cast<std::size_t>(index)];
    choice.limits = agreed;
    return rank.load(choice);
  });
  if (!loaded) {
    unload();
    return loaded.error();
  }
  auto all = loaded->front();
  all.facts = facts();
  all.kv = nullptr;
  return all;
}

result<void> tensor_device::begin(step_plan plan) {
  ensure(plan.copies.empty(), "keys and values copied to a group that lends none");
  return all_begin([&](backend_device& rank) { return rank.begin(plan); });
}

step_result tensor_device::finish() {
  for (std::size_t rank = 1; rank < ranks_.size(); ++rank) (void)ranks_[rank]->finish();
  return ranks_.front()->finish();
}

result<device_facts> tensor_device::add_variant(variant_id id, const variant& what) {
  variant own = what;
  if (own.ranks.empty()) {
    if (!own.adapter)
      return error{
          errc::unsupported,
          fmt::format("{}: weights version {} is another device's, and whole", name_, what.version),
          ""};
    const auto& adapter = *own.adapter;
    if (adapter.layout.place != model::tensor_rank{})
      return error{errc::unsupported,
                   fmt::format("{}: adapter version {} is another group's", name_, what.version),
                   ""};
    host_bytes bytes(adapter.layout.bytes);
    if (adapter.book)
      adapter.book->source().read(adapter.memory.bytes().first(bytes.size()), bytes.data());
    else
      std::copy_n(adapter.memory.bytes().data(), bytes.size(), bytes.data());
    auto split = split_adapter(adapter.layout, bytes.all(), what.version);
    if (!split) return split.error();
    own = *std::move(split);
  }
  ensure(own.ranks.size() == ranks_.size(), "a version of as many parts as ranks");
  auto added = answers<device_facts>([&](backend_device& rank, int index) {
    return rank.add_variant(id, own.ranks[static_cast<std::size_t>(index)]);
  });
  if (!added) {
    remove_variant(id);
    return added.error();
  }
  return facts();
}

// The pause is the calling thread's: files are read there, whole, and then divided.
result<variant> tensor_device::load_variant(const std::string& checkpoint, std::uint64_t version,
                                            const pause_point& pause) {
  const auto facts = train::read_checkpoint_facts(checkpoint);
  if (!facts) return facts.error();
  const auto* base = ranks_.front()->base();
  if (!base) return error{errc::conflict, fmt::format("{}: a version before a model", name_), ""};
  const auto& settings = facts->settings;
  if (settings.method != train::training_method::lora)
    return load_weights(checkpoint, base->config, settings.serve_format, version, pause);
  const auto layout = model::adapter_layout::make(ranks_.front()->backend(), base->config,
                                                  settings.rank, settings.alpha, settings.targets);
  if (!layout) return layout.error();
  host_bytes bytes(layout->bytes);
  if (auto read = train::read_parameters(checkpoint, bytes.floats(), pause); !read)
    return read.error();
  return split_adapter(*layout, bytes.all(), version);
}

result<variant> tensor_device::load_weights(const std::string& checkpoint,
                                            const model::model_config& config,
                                            std::string_view format, std::uint64_t version,
                                            const pause_point& pause) {
  using part = std::shared_ptr<train::weights_part>;
  auto parts =
      answers<part>([&](backend_device& rank, int) { return rank.weights_part(format, version); });
  if (!parts) return parts.error();
  const auto layout = train::parameter_layout::make(ranks_.front()->backend(), config);
  if (!layout) return layout.error();
  host_bytes bytes(layout->floats * sizeof(float));
  if (auto read = train::read_parameters(checkpoint, bytes.floats(), pause); !read)
    return read.error();
  for (std::size_t piece = 0; piece < parts->front()->piece_count(); ++piece) {
    on_each([&](backend_device&, int rank) {
      (*parts)[static_cast<std::size_t>(rank)]->write(piece, bytes.floats());
    });
    pause();
  }
  variant all{.version = version, .adapter = nullptr, .weights = nullptr};
  for (const auto& one : *parts) all.ranks.push_back({version, nullptr, one->take()});
  return all;
}

result<variant> tensor_device::split_adapter(const model::adapter_layout& layout,
                                             std::span<std::byte> bytes, std::uint64_t version) {
  using part = std::shared_ptr<const model::adapter>;
  auto parts = answers<part>(
      [&](backend_device& rank, int) { return rank.adapter_part(layout, bytes, version); });
  if (!parts) return parts.error();
  variant all{.version = version, .adapter = nullptr, .weights = nullptr};
  for (auto& one : *parts) all.ranks.push_back({version, std::move(one), nullptr});
  return all;
}

result<train::opened> tensor_device::open_training(const train::open_order& order,
                                                   const pause_point& pause) {
  if (order.device_count > 1)
    return error{errc::unsupported,
                 fmt::format("{}: devices that hold a model together train a job alone, not as one "
                             "of {}",
                             name_, order.device_count),
                 ""};
  // Whoever gives the opening up leaves nothing of it.
  struct closing {
    ~closing() {
      if (group != nullptr) group->close_training(job);
    }
    tensor_device* group;
    const std::string& job;
  } closes{this, order.job};
  auto opened = open_ranks(order, pause);
  if (opened) closes.group = nullptr;
  return opened;
}

// What ranks read alone they read without a pause, which is the calling thread's.
result<train::opened> tensor_device::open_ranks(const train::open_order& order,
                                                const pause_point& pause) {
  auto own = order;
  own.apart = true;
  auto opened = answers<train::opened>(
      [&](backend_device& rank, int) { return rank.open_training(own, no_pause); });
  if (!opened) return opened.error();
  auto all = opened->front();
  for (std::size_t rank = 1; rank < opened->size(); ++rank)
    add_to(all.memory, (*opened)[rank].memory);
  all.keeps = -1;
  if (order.settings.method != train::training_method::full) return all;

  auto& first = ranks_.front()->backend();
  const auto& config = ranks_.front()->base()->config;
  const auto whole = train::parameter_layout::make(first, config);
  auto layout = train::rank_layout::make(first, config, static_cast<int>(ranks_.size()));
  if (!whole) return whole.error();
  if (!layout) return layout.error();
  all.trainable_parameters = 0;
  for (const auto& tensor : whole->tensors)
    all.trainable_parameters += tensor.rows * tensor.columns;
  all.layout.parameters = whole->parameters;
  all.layout.shards = train::shards_of(whole->parameters, 1);
  std::vector<std::shared_ptr<train::trainer_memory>> memories;
  for (const auto& one : *opened) memories.push_back(one.shared);
  const auto shared = std::make_shared<train::rank_memory>(std::move(memories), *std::move(layout));
  all.shared = shared;
  if (!order.checkpoint.empty()) {
    const auto step = train::resume_ranks(order.checkpoint, *shared, pause);
    if (!step) return step.error();
    all.step = *step;
  }
  while (all_advance([](backend_device& rank) { return rank.open_more(); })) pause();
  return all;
}

result<void> tensor_device::begin_training(train::order what) {
  return all_begin([&](backend_device& rank) { return rank.begin_training(what); });
}

result<train::outcome> tensor_device::finish_training() {
  for (std::size_t rank = 1; rank < ranks_.size(); ++rank) (void)ranks_[rank]->finish_training();
  return ranks_.front()->finish_training();
}

}  // namespace

std::unique_ptr<device> make_tensor_device(const device_spec& spec) {
  return std::make_unique<tensor_device>(spec);
}

}  // namespace tandem::serve
