#include "gateway/command/launch/plan.hpp"

#include "gateway/command/launch/files.hpp"
#include "gateway/command/launch/hosts_file.hpp"
#include "gateway/command/launch/slurm_plan.hpp"
#include "gateway/command/launch/ssh_plan.hpp"
#include "tests/support/command_run.hpp"

#include <catch2/catch.hpp>

#include <sys/stat.h>

#include <algorithm>
#include <fstream>
#include <iterator>

namespace {

using namespace tandem;
using namespace tandem::gateway::command;
using tandem::tests::scratch_folder;

launch_settings usual() {
  launch_settings given;
  given.configuration.model.path = "/models/m.gguf";
  given.configuration.cluster.secret_file = "/home/secret";
  given.of_head = {"--set", "serve.max_queued=5"};
  return given;
}

bool has(const words_list& words, const std::string& word) {
  return std::ranges::find(words, word) != words.end();
}

std::string joined(const words_list& words) {
  std::string all;
  for (const auto& word : words) all += word + " ";
  return all;
}

TEST_CASE("the cores are dealt out in equal ranges, and taken in turn beyond them") {
  const auto four = *shares_of(2, {"auto"}, 0, {0, 1, 2, 3});
  CHECK(four.size() == launched_nodes_max);
  CHECK(four[0] == words_list{"cpu:0-1"});
  CHECK(four[1] == words_list{"cpu:2-3"});
  CHECK(four[2] == words_list{"cpu:0-1"});
  CHECK((*shares_of(4, {"auto"}, 0, {0, 1}))[3] == words_list{"cpu:1-1"});
  CHECK((*shares_of(3, {"auto"}, 0, {0, 1, 2, 3, 4, 5, 6}))[1] == words_list{"cpu:2-3"});
  CHECK((*shares_of(1, {"auto"}, 1, {4, 5}))[1] == words_list{"cpu:5-5"});
  CHECK(shares_of(1, {"auto"}, 3, {0, 1}).error().detail.find("may use 2") != std::string::npos);
}

TEST_CASE("listed devices are dealt out in order") {
  const auto shares = *shares_of(2, {"cpu:0", "cpu:1", "cpu:2", "cpu:3"}, 0, {0, 1, 2, 3});
  CHECK(shares[0] == words_list{"cpu:0", "cpu:1"});
  CHECK(shares[1] == words_list{"cpu:2", "cpu:3"});
  CHECK(shares_of(2, {"cpu:0"}, 0, {0}).error().detail.find("1 devices") != std::string::npos);
  CHECK_FALSE(shares_of(1, {"cpu:0"}, 1, {0}));
}

TEST_CASE("a local plan has the secret's file in its commands, and never the secret") {
  const auto plan = *local_plan(2, 0, usual(), {0, 1});
  CHECK(plan.listen == "127.0.0.1:0");
  const auto& head = plan.nodes[0].start;
  CHECK(joined(head).starts_with("tandem up --set serve.max_queued=5 "));
  CHECK(has(head, "cluster.listen={listen}"));
  CHECK(has(head, "devices.list=cpu:0-0"));
  CHECK(joined(plan.nodes[1].start)
            .starts_with("tandem join {cluster} --name node2 --devices cpu:1-1 --secret-file "
                         "/home/secret "));
  CHECK_FALSE(local_plan(0, 0, usual(), {0}));
  CHECK_FALSE(local_plan(65, 0, usual(), {0}));
}

TEST_CASE("a file of hosts has a node a line, with comments") {
  const auto hosts = *parse_hosts(
      "# the first two racks\n\n"
      "gpu1\n"
      "me@gpu2  8   # half of it\n"
      "10.0.0.3 devices=cpu:0-3,cpu:4-7 name=third home=/srv/t tandem=/opt/t log.level=debug\n"
      "gpu1",
      "f");
  REQUIRE(hosts.size() == 4);
  CHECK(hosts[0].name == "gpu1");
  CHECK(hosts[1] == host_line{"me@gpu2", 8, "gpu2", "", "", "", {}});
  CHECK(
      hosts[2] ==
      host_line{
          "10.0.0.3", 0, "third", "cpu:0-3,cpu:4-7", "/opt/t", "/srv/t", {{"log.level", "debug"}}});
  CHECK(hosts[3].name == "gpu1-2");
}

TEST_CASE("a wrong line of a file of hosts is refused with its number") {
  const auto why = [](std::string_view text) { return parse_hosts(text, "f").error().detail; };
  CHECK(why("a\nb nam=x\n") == "f:2: unknown key nam: did you mean name?");
  CHECK(why("a 4 5") == "f:1: '5': a line is HOST [CORES] [KEY=VALUE]…");
  CHECK(why("a 0").starts_with("f:1: '0'"));
  CHECK(why("-oProxyCommand=x") == "f:1: '-oProxyCommand=x' is no host");
  CHECK(why("a;reboot") == "f:1: 'a;reboot' is no host");
  CHECK(why("a name=x\nb name=x") == "f:2: the name x is taken");
  CHECK(why("a name=head") == "f:1: the name head is taken");
  CHECK(why("a 2 devices=cpu:0").starts_with("f:1: cores and devices"));
  CHECK(why("# nobody\n").starts_with("f names no host"));
  std::string many;
  for (std::size_t n = 0; n <= hosts_max; ++n) many += "h\n";
  CHECK(why(many) == "f:64: more than 63 hosts");
}

TEST_CASE("a node on a host gets its secret on its input and says its process") {
  const auto hosts = *parse_hosts("10.0.0.2 2 home=/it's", "f");
  const auto plan =
      ssh_plan(hosts, {{"ssh", "-p", "22022"}, "/opt/tandem", "10.0.0.1:0"}, usual(), "hosts.txt");
  REQUIRE(plan.nodes.size() == 2);
  const auto& node = plan.nodes[1];
  CHECK(node.takes_secret);
  CHECK(joined(node.start).starts_with("ssh -p 22022 -o BatchMode=yes "));
  CHECK(has(node.start, "10.0.0.2"));
  const auto& command = node.start.back();
  CHECK(command.starts_with("exec sh -c '"));
  CHECK(command.find("echo process $$") != std::string::npos);
  CHECK(command.find("--secret-file") != std::string::npos);
  CHECK(node.stop.back() == "kill -TERM {process}");
  CHECK(in_quotes("it's") == "'it'\\''s'");
}

TEST_CASE("what ssh says is passed on with what to do") {
  CHECK(ssh_complaint("root@h: Permission denied (publickey).").find("ssh-copy-id") !=
        std::string::npos);
  CHECK(ssh_complaint("Host key verification failed.").find("by hand once") != std::string::npos);
  CHECK(ssh_complaint("ssh: connect to host h port 22: No route to host") ==
        "ssh: connect to host h port 22: No route to host");
  CHECK(ssh_complaint("joined 10.0.0.1:7000 as h").empty());
}

TEST_CASE("inside an allocation every node is a step of the job, ended by its number") {
  const auto plan = slurm_plan({"12", {"n1", "n2"}, "10.0.0.1:0"}, "/opt/tandem", usual());
  REQUIRE(plan.nodes.size() == 2);
  CHECK(has(plan.nodes[0].start, "--nodelist=n1"));
  CHECK(plan.nodes[0].start.back().starts_with(
      "echo process $SLURM_STEP_ID; exec '/opt/tandem' 'up' "));
  CHECK(plan.nodes[1].takes_secret);
  CHECK(plan.nodes[1].stop == words_list{"scancel", "--signal=TERM", "12.{process}"});
  CHECK(slurm_address_of("NodeName=n1 Arch=x NodeAddr=10.1.2.3 NodeHostName=n1") == "10.1.2.3");
  CHECK(slurm_address_of("Node n9 not found").empty());
}

TEST_CASE("the script for sbatch asks for the hosts and leaves time to drain") {
  CHECK(
      slurm_script({3, {"--partition=long"}, {"/opt/tandem", "launch"}, "/h", "/h/log", 30'000}) ==
      "#!/bin/bash\n"
      "# Made by `tandem launch --slurm`.\n"
      "#SBATCH --job-name=tandem\n"
      "#SBATCH --nodes=3\n"
      "#SBATCH --ntasks-per-node=1\n"
      "#SBATCH --signal=B:TERM@90\n"
      "#SBATCH --output=/h/log\n"
      "#SBATCH --partition=long\n"
      "export TANDEM_HOME='/h'\n"
      "exec '/opt/tandem' 'launch'\n");
}

TEST_CASE("the record of a cluster is read as it was written") {
  const scratch_folder home;
  launch_record record;
  record.plan = *local_plan(2, 0, usual(), {0, 1});
  record.plan.nodes[1].stop = {"a", "b c"};
  record.nodes.resize(record.plan.nodes.size());
  record.nodes[1] = {{12, 345, "boot"}, "up", "77", "why"};
  record.plan.directory = "/d";
  record.order = "x";
  record.settled = true;
  launch_files files(home.path());
  CHECK_FALSE(*files.read());
  REQUIRE(files.lock());
  REQUIRE(files.write(record));
  CHECK(**files.read() == record);
  CHECK(files.running(record).empty());
  CHECK_FALSE(record_from("{}"));
  CHECK_FALSE(record_from("[1,"));
}

TEST_CASE("an order is read as it was given, and a half one is none") {
  const scratch_folder home;
  launch_files files(home.path());
  REQUIRE(files.lock());
  CHECK_FALSE(files.wish());
  const auto order = *files.want(3);
  CHECK(files.wish() == launch_wish{3, order});
  CHECK(*files.want(3) != order);
  std::ofstream(files.folder() / "wanted") << "3";
  CHECK_FALSE(files.wish());
}

TEST_CASE("one launcher holds a home") {
  const scratch_folder home;
  launch_files first(home.path());
  launch_files second(home.path());
  CHECK_FALSE(second.has_launcher());
  REQUIRE(first.lock());
  CHECK(second.has_launcher());
  CHECK(second.lock().error().code == errc::conflict);
  first.unlock();
  CHECK(second.lock());
}

TEST_CASE("a secret is made once, for its owner alone") {
  const scratch_folder home;
  const auto path = home.path() / "new" / "secret";
  const auto text = [&] {
    std::ifstream file(path);
    return std::string(std::istreambuf_iterator<char>(file), {});
  };
  REQUIRE(make_secret(path));
  struct stat about {};
  REQUIRE(::stat(path.c_str(), &about) == 0);
  CHECK((about.st_mode & 0777) == 0600);
  const auto secret = text();
  CHECK(secret.size() == 65);
  REQUIRE(make_secret(path));
  CHECK(text() == secret);
}

}  // namespace
