#include "gateway/command/launch/kubernetes_manifest.hpp"

#include "gateway/command/launch/ssh_plan.hpp"
#include "gateway/command/print.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <string_view>

namespace tandem::gateway::command {
namespace {

constexpr int nodes_max = 256;
constexpr std::size_t name_bytes_max = 40;  // pods are named NAME-node-N, and a name has 63
constexpr int cluster_port = 7000;
constexpr const char* home = "/var/lib/tandem";

constexpr std::string_view services = R"(apiVersion: v1
kind: Service
metadata:
  name: {name}-cluster
  labels: {{app.kubernetes.io/name: tandem, app.kubernetes.io/instance: {name}}}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{app.kubernetes.io/name: tandem, app.kubernetes.io/instance: {name}}}
  ports:
    - {{name: cluster, port: {cluster_port}, targetPort: cluster}}
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
  labels: {{app.kubernetes.io/name: tandem, app.kubernetes.io/instance: {name}}}
spec:
  selector:
    app.kubernetes.io/name: tandem
    app.kubernetes.io/instance: {name}
    app.kubernetes.io/component: head
  ports:
    - {{name: http, port: {http_port}, targetPort: http}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {name}
  labels: {{app.kubernetes.io/name: tandem, app.kubernetes.io/instance: {name}}}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{app.kubernetes.io/name: tandem, app.kubernetes.io/instance: {name}}}
)";

constexpr std::string_view stateful_set = R"(---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {name}-{part}
  labels:
    app.kubernetes.io/name: tandem
    app.kubernetes.io/instance: {name}
    app.kubernetes.io/component: {part}
spec:
  replicas: {replicas}
  serviceName: {name}-cluster
  podManagementPolicy: Parallel
  selector:
    matchLabels:
      app.kubernetes.io/name: tandem
      app.kubernetes.io/instance: {name}
      app.kubernetes.io/component: {part}
  template:
    metadata:
      labels:
        app.kubernetes.io/name: tandem
        app.kubernetes.io/instance: {name}
        app.kubernetes.io/component: {part}
    spec:
      terminationGracePeriodSeconds: {grace_s}
      securityContext: {{runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001}}
{init}      containers:
        - name: tandem
          image: {image}
          command: ["sh", "-c", {command}]
          env:
            - {{name: TANDEM_HOME, value: {home}}}
            - name: POD_NAME
              valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}
            - name: POD_IP
              valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}
          ports:
{ports}          resources:
            requests: {{cpu: "{cores}", memory: {memory}}}
            limits: {{cpu: "{cores}", memory: {memory}}}
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: {{drop: ["ALL"]}}
{probes}          volumeMounts:
            - {{name: home, mountPath: {home}}}
            - {{name: secrets, mountPath: /run/secrets/tandem, readOnly: true}}
      volumes:
        - name: secrets
          secret: {{secretName: {name}, defaultMode: 288}}
  volumeClaimTemplates:
    - metadata: {{name: home}}
      spec:
        accessModes: ["ReadWriteOnce"]
        resources: {{requests: {{storage: {storage}}}}}
)";

constexpr std::string_view pull = R"(      initContainers:
        - name: pull
          image: {image}
          command: ["sh", "-c", {command}]
          env:
            - {{name: TANDEM_HOME, value: {home}}}
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: {{drop: ["ALL"]}}
          volumeMounts:
            - {{name: home, mountPath: {home}}}
)";

constexpr std::string_view head_probes = R"(          startupProbe:
            httpGet: {path: /health/ready, port: http}
            periodSeconds: 2
            failureThreshold: 300
          readinessProbe:
            httpGet: {path: /health/ready, port: http}
            periodSeconds: 5
          livenessProbe:
            httpGet: {path: /health/live, port: http}
            periodSeconds: 10
            failureThreshold: 6
)";

constexpr std::string_view node_probes = R"(          readinessProbe:
            tcpSocket: {port: cluster}
            periodSeconds: 10
)";

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= name_bytes_max && text.front() != '-' &&
         text.back() != '-' && std::isdigit(static_cast<unsigned char>(text.front())) == 0 &&
         std::ranges::all_of(text, [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
         });
}

// "4Gi", "512Mi", "2000000000".
bool is_quantity(std::string_view text) {
  const auto digits = std::min(text.find_first_not_of("0123456789"), text.size());
  const auto unit = text.substr(digits);
  constexpr std::string_view units[] = {"", "k", "M", "G", "T", "Ki", "Mi", "Gi", "Ti"};
  return digits > 0 && digits <= 12 && std::ranges::find(units, unit) != std::end(units);
}

// An image's name, a path: what may stand in YAML without quotes and in a shell within them.
bool is_plain(std::string_view text) {
  return !text.empty() && text.size() <= 512 && text.front() != '-' &&
         std::ranges::all_of(text, [](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                  std::string_view("-._/:@+").find(c) != std::string_view::npos;
         });
}

bool is_of_the_hub(std::string_view model) { return !model.starts_with("/"); }

result<void> check(const kubernetes_wish& wanted) {
  const auto refuse = [](std::string why) {
    return error{errc::bad_request, std::move(why), "kubernetes"};
  };
  if (!is_name(wanted.name))
    return refuse(fmt::format("the name {}: up to {} of a-z, 0-9 and -, a letter first",
                              wanted.name, name_bytes_max));
  if (!is_plain(wanted.image)) return refuse(fmt::format("--image {}: is no image", wanted.image));
  if (wanted.model.empty() || !is_plain(wanted.model) ||
      (is_of_the_hub(wanted.model) && wanted.model.find('/') == std::string::npos))
    return refuse(fmt::format(
        "model '{}': for pods give OWNER/NAME[:FILE] of the hub, or a path in the image",
        wanted.model));
  if (wanted.nodes < 1 || wanted.nodes > nodes_max)
    return refuse(fmt::format("--nodes {}: give 1 to {}", wanted.nodes, nodes_max));
  if (wanted.cores < 1) return refuse(fmt::format("--cores {}: give 1 or more", wanted.cores));
  for (const auto& size : {wanted.memory, wanted.storage})
    if (!is_quantity(size)) return refuse(fmt::format("{}: write 512Mi, 4Gi or the like", size));
  return {};
}

std::string settings_words(const kubernetes_wish& wanted) {
  std::string words;
  for (const auto& assignment : wanted.assignments) words += " --set " + in_quotes(assignment);
  return words;
}

std::string head_command(const kubernetes_wish& wanted, const settings& given) {
  const std::string model = is_of_the_hub(wanted.model) ? fmt::format("\"$(cat {}/model)\"", home)
                                                        : in_quotes(wanted.model);
  return fmt::format(
      "exec tandem up --model {} --host 0.0.0.0 --port {}{} --set cluster.listen=\"$POD_IP:{}\" "
      "--set cluster.secret_file=/run/secrets/tandem/cluster-secret "
      "--set server.admin_key_file=/run/secrets/tandem/admin-key",
      model, given.server.port, settings_words(wanted), cluster_port);
}

std::string node_command(const kubernetes_wish& wanted) {
  return fmt::format(
      "exec tandem join {}-head-0.{}-cluster:{} --name \"$POD_NAME\"{} "
      "--set cluster.listen=\"$POD_IP:{}\" "
      "--set cluster.secret_file=/run/secrets/tandem/cluster-secret",
      wanted.name, wanted.name, cluster_port, settings_words(wanted), cluster_port);
}

std::string set_of(const kubernetes_wish& wanted, const settings& given, bool head) {
  using fmt::arg;
  std::string init;
  if (is_of_the_hub(wanted.model))
    init = fmt::format(
        pull, arg("image", wanted.image), arg("home", home),
        arg("command", json_text(fmt::format("tandem pull {} > {}/model.new && mv {}/model.new "
                                             "{}/model",
                                             in_quotes(wanted.model), home, home, home))));
  std::string ports =
      fmt::format("            - {{name: cluster, containerPort: {}}}\n", cluster_port);
  if (head)
    ports += fmt::format("            - {{name: http, containerPort: {}}}\n", given.server.port);
  return fmt::format(
      stateful_set, arg("name", wanted.name), arg("part", head ? "head" : "node"),
      arg("replicas", head ? 1 : wanted.nodes - 1),
      arg("grace_s", 2 * given.server.drain_timeout_ms / 1000 + 15), arg("init", init),
      arg("image", wanted.image),
      arg("command", json_text(head ? head_command(wanted, given) : node_command(wanted))),
      arg("home", home), arg("ports", ports), arg("cores", wanted.cores),
      arg("memory", wanted.memory), arg("probes", head ? head_probes : node_probes),
      arg("storage", wanted.storage));
}

}  // namespace

result<std::string> kubernetes_manifest(const kubernetes_wish& wanted, const settings& given) {
  if (auto fine = check(wanted); !fine) return fine.error();
  std::string yaml = fmt::format(
      "# Made by `tandem launch --kubernetes`. First, once:\n"
      "#   kubectl create secret generic {0} --from-literal=cluster-secret=\"$(openssl rand -hex "
      "32)\" \\\n"
      "#     --from-literal=admin-key=\"$(openssl rand -hex 32)\"\n"
      "# Then: tandem launch --kubernetes … | kubectl apply -f -\n"
      "# The image {1} has this build's `tandem` in its PATH. To grow or shrink:\n"
      "#   kubectl scale statefulset {0}-node --replicas=N\n",
      wanted.name, wanted.image);
  yaml +=
      fmt::format(services, fmt::arg("name", wanted.name), fmt::arg("cluster_port", cluster_port),
                  fmt::arg("http_port", given.server.port));
  yaml += set_of(wanted, given, true);
  return yaml + set_of(wanted, given, false);
}

}  // namespace tandem::gateway::command
