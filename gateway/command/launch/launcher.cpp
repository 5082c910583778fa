#include "gateway/command/launch/launcher.hpp"

#include "gateway/command/launch/book.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <map>
#include <memory>
#include <ostream>
#include <utility>
#include <vector>

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

namespace tandem::gateway::command {
namespace {

using clock = std::chrono::steady_clock;

constexpr int look_again_ms = 50;  // for lines, and for an order to scale

// SIGINT and SIGTERM as something to poll; of this thread, before it makes another.
class end_signals {
 public:
  end_signals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGINT);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &set_, &before_);
    file_ = ::signalfd(-1, &set_, SFD_CLOEXEC | SFD_NONBLOCK);
  }
  ~end_signals() {
    while (take()) {
    }
    ::close(file_);
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }
  end_signals(const end_signals&) = delete;
  end_signals& operator=(const end_signals&) = delete;

  int file() const { return file_; }
  bool take() {
    signalfd_siginfo one{};
    return ::read(file_, &one, sizeof one) == sizeof one;
  }

 private:
  sigset_t set_{};
  sigset_t before_{};
  int file_ = -1;
};

void replace_all(std::string& in, std::string_view what, const std::string& with) {
  for (auto at = in.find(what); at != std::string::npos; at = in.find(what, at + with.size()))
    in.replace(at, what.size(), with);
}

class launcher {
 public:
  launcher(const console& io, const launch_files& files, launch_record record)
      : io_(io), files_(files), record_(std::move(record)), book_(make_book()) {
    processes_.resize(record_.plan.nodes.size());
  }

  int run() {
    end_signals signals;
    take_over();
    int orders_to_end = 0;
    while (!book_.over()) {
      wait(signals);
      if (const auto wish = files_.wish(); wish && wish->order != order_ && orders_to_end == 0)
        take_up(*wish);
      while (signals.take()) end(++orders_to_end);
      look();
      for (const auto& order : book_.due(clock::now())) carry_out(order);
      tell();
      keep();
      if (!std::exchange(was_settled_, book_.settled()) && was_settled_ && book_.up() > 0)
        say(fmt::format("ready {} in {} ms, {} of {} nodes up", book_.http_address(), age_ms(),
                        book_.up(), book_.wanted()));
    }
    keep();
    const auto& head = book_.nodes().front();
    if (head.now == launched_node::state::down)
      return refuse(io_, {errc::unavailable, "the head stays down: " + head.why, {}});
    say("all nodes have ended");
    return done;
  }

 private:
  launch_book make_book() const {
    std::vector<std::string> names;
    for (const auto& recipe : record_.plan.nodes) names.push_back(recipe.name);
    return {names, record_.plan.has_spares,
            std::chrono::milliseconds(record_.plan.drain_timeout_ms)};
  }

  void say(const std::string& line) { io_.out << line << std::endl; }

  void tell() {
    for (const auto& line : book_.take_news()) say(line);
  }

  std::int64_t age_ms() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(clock::now() - began_).count();
  }

  void take_up(const launch_wish& wish) {
    if (!order_.empty())
      say(wish.count == 0 ? "ending: the head first, it finishes what runs; a second time ends all "
                            "at once"
                          : fmt::format("{} nodes are wanted", wish.count));
    order_ = wish.order;
    began_ = clock::now();
    was_settled_ = false;
    book_.want(wish.count);
  }

  void want(int count) {
    if (const auto order = files_.want(count))
      take_up({count, *order});
    else
      refuse(io_, order.error());
  }

  void end(int times) {
    if (times == 1) return want(0);
    if (times == 2) say("ending all at once");
    book_.hurry(clock::now());
  }

  // Whoever runs already, from a launcher that is gone.
  void take_over() {
    book_.knew(record_.cluster_address, record_.http_address);
    for (std::size_t n = 0; n < processes_.size(); ++n) {
      const auto& recipe = record_.plan.nodes[n];
      processes_[n] = node_process::find(record_.nodes[n].process, files_.log_of(recipe.name));
      book_.was_elsewhere(n, record_.nodes[n].elsewhere);
      if (!processes_[n]) continue;
      book_.found(n, clock::now());
      say(fmt::format("{}: process {} goes on ({})", recipe.name, processes_[n]->identity().pid,
                      recipe.where));
    }
    take_up(files_.wish().value_or(launch_wish{1, "none"}));
  }

  void wait(const end_signals& signals) {
    std::vector<pollfd> files{{signals.file(), POLLIN, 0}};
    for (const auto& process : processes_)
      if (process) files.push_back({process->end_file(), POLLIN, 0});
    for (const auto& [node, process] : enders_) files.push_back({process->end_file(), POLLIN, 0});
    ::poll(files.data(), files.size(), look_again_ms);
  }

  void look() {
    for (std::size_t n = 0; n < processes_.size(); ++n) {
      if (!processes_[n]) continue;
      const auto end = processes_[n]->take_end();
      for (auto lines = processes_[n]->take_lines(); !lines.empty();
           lines = end ? processes_[n]->take_lines() : std::vector<std::string>())
        for (const auto& line : lines) book_.heard(n, line, clock::now());
      if (!end) continue;
      processes_[n].reset();
      const int wanted = book_.wanted();
      book_.ended(n, *end, clock::now());
      // Drained by hand: the next launcher should not want it, either.
      if (book_.wanted() != wanted)
        if (const auto order = files_.want(book_.wanted())) order_ = *order;
    }
    std::erase_if(enders_, [](const auto& one) { return one.second->take_end().has_value(); });
  }

  words_list filled(words_list words, std::size_t node) const {
    const auto& plan = record_.plan;
    const auto& address = book_.cluster_address();
    const auto& http = book_.http_address();
    const std::string port =
        http.empty() ? fmt::format("{}", plan.port) : http.substr(http.rfind(':') + 1);
    // At the port that others know by now.
    const std::string listen = address.empty() ? plan.listen
                                               : plan.listen.substr(0, plan.listen.rfind(':')) +
                                                     address.substr(address.rfind(':'));
    const double share = plan.memory_fraction / std::max(1, book_.wanted());
    for (auto& word : words) {
      replace_all(word, "{cluster}", address);
      replace_all(word, "{listen}", listen);
      replace_all(word, "{port}", port);
      replace_all(word, "{memory}", fmt::format("{:.4f}", std::max(0.01, share)));
      replace_all(word, "{before}", book_.nodes()[node].before);
      replace_all(word, "{process}", book_.nodes()[node].elsewhere);
    }
    return words;
  }

  void carry_out(const launch_order& order) {
    using kind = launch_order::kind;
    const auto n = order.node;
    const auto& recipe = record_.plan.nodes[n];
    if (order.what == kind::start) return start(n);
    if (!processes_[n]) return;
    const bool asks = order.what == kind::ask_to_end;
    const auto& command = asks ? recipe.stop : recipe.kill;
    if (!command.empty() && !book_.nodes()[n].elsewhere.empty()) {
      auto ender = node_process::start(filled(command, n), {}, files_.log_of(recipe.name + ".end"));
      if (ender)
        enders_.emplace_back(n, *std::move(ender));
      else
        say(fmt::format("{}: {}", recipe.name, ender.error().detail));
    }
    if (command.empty() || !asks || book_.nodes()[n].elsewhere.empty())
      processes_[n]->signal(asks ? SIGTERM : SIGKILL);
  }

  void start(std::size_t n) {
    const auto& recipe = record_.plan.nodes[n];
    const std::filesystem::path input = recipe.takes_secret ? record_.plan.secret_file : "";
    auto process = node_process::start(filled(recipe.start, n), input, files_.log_of(recipe.name));
    if (!process) return book_.ended(n, {127, process.error().detail}, clock::now());
    processes_[n] = *std::move(process);
    say(fmt::format("{}: process {} starts ({})", recipe.name, processes_[n]->identity().pid,
                    recipe.where));
  }

  // A full disk harms nobody that runs.
  void keep() {
    auto next = record_;
    next.order = order_;
    next.settled = book_.settled();
    next.cluster_address = book_.cluster_address();
    next.http_address = book_.http_address();
    for (std::size_t n = 0; n < processes_.size(); ++n) {
      const auto& node = book_.nodes()[n];
      next.nodes[n] = {processes_[n] ? processes_[n]->identity() : process_identity{},
                       name_of(node.now), node.elsewhere.empty() ? node.before : node.elsewhere,
                       node.why};
    }
    if (next == record_) return;
    record_ = std::move(next);
    if (const auto kept = files_.write(record_); !kept) refuse(io_, kept.error());
  }

  const console& io_;
  const launch_files& files_;
  launch_record record_;
  launch_book book_;
  std::vector<std::unique_ptr<node_process>> processes_;  // by node
  std::vector<std::pair<std::size_t, std::unique_ptr<node_process>>> enders_;
  std::string order_;
  bool was_settled_ = false;
  clock::time_point began_ = clock::now();
};

}  // namespace

int run_launcher(const console& io, const launch_files& files, launch_record record) {
  return launcher(io, files, std::move(record)).run();
}

result<std::unique_ptr<node_process>> start_launcher(const launch_files& files) {
  return node_process::start({"tandem", "launch", "--resume"}, {}, files.log_of("launcher"));
}

}  // namespace tandem::gateway::command
