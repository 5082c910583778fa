#include "gateway/command/launch/kubernetes_manifest.hpp"
#include "tests/support/command_run.hpp"

#include <catch2/catch.hpp>

namespace {

using namespace tandem::tests;
using tandem::gateway::command::kubernetes_manifest;
using tandem::gateway::command::kubernetes_wish;

std::string refusal(const kubernetes_wish& wanted) {
  const auto made = kubernetes_manifest(wanted, {});
  return made ? "none" : made.error().detail;
}

kubernetes_wish usual() {
  kubernetes_wish wanted;
  wanted.model = "Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q8_0";
  return wanted;
}

TEST_CASE("a manifest pulls a model of the hub, and takes one that lies in the image") {
  auto wanted = usual();
  const auto pulled = *kubernetes_manifest(wanted, {});
  CHECK(pulled.find("initContainers:") != std::string::npos);
  CHECK(pulled.find("tandem pull 'Qwen/Qwen2.5-0.5B-Instruct-GGUF:Q8_0'") != std::string::npos);
  wanted.model = "/models/m.gguf";
  const auto there = *kubernetes_manifest(wanted, {});
  CHECK(there.find("initContainers:") == std::string::npos);
  CHECK(there.find("--model '/models/m.gguf'") != std::string::npos);
}

TEST_CASE("a pod has the time that draining takes before it is killed") {
  tandem::settings given;
  given.server.drain_timeout_ms = 60'000;
  CHECK(kubernetes_manifest(usual(), given)->find("terminationGracePeriodSeconds: 135\n") !=
        std::string::npos);
}

TEST_CASE("what would break out of the manifest is refused by name") {
  auto wanted = usual();
  wanted.name = "Big";
  CHECK(refusal(wanted).starts_with("the name Big"));
  wanted = usual();
  wanted.image = "x\n- evil";
  CHECK(refusal(wanted).starts_with("--image"));
  wanted = usual();
  wanted.model = "local-name";
  CHECK(refusal(wanted).find("OWNER/NAME") != std::string::npos);
  wanted.model = "a/b'$(x)";
  CHECK(refusal(wanted).find("OWNER/NAME") != std::string::npos);
  wanted = usual();
  wanted.memory = "4 GB";
  CHECK(refusal(wanted) == "4 GB: write 512Mi, 4Gi or the like");
  wanted = usual();
  wanted.nodes = 0;
  CHECK(refusal(wanted).starts_with("--nodes 0"));
}

TEST_CASE("launch says what is missing, and starts nothing") {
  CHECK(run_command({"launch"}).status == 2);
  const auto both = run_command({"launch", "--local", "2", "--slurm"});
  CHECK(both.status == 2);
  CHECK(both.err.find("--local N, --hosts FILE, --slurm or --kubernetes") != std::string::npos);
  CHECK(run_command({"launch", "--kubernetes"}).status == 2);
  const auto manifest = run_command({"launch", "--kubernetes", "--nodes", "4", "a/b"});
  CHECK(manifest.status == 0);
  CHECK(manifest.out.find("replicas: 3\n") != std::string::npos);
  CHECK(run_command({"launch", "--kubernetes", "a/b", "--devices", "cpu:0-1"})
            .out.find("--set 'devices.list=cpu:0-1'") != std::string::npos);
  CHECK(run_command({"launch", "--kubernetes", "a/b", "--config", "configs/cluster_head.toml"})
            .status != 0);
  const auto nothing = run_command({"scale", "2"});
  CHECK(nothing.status == 1);
  CHECK(nothing.err.find("tandem launch") != std::string::npos);
}

}  // namespace
