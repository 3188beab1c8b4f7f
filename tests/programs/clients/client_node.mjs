// A story told with @kubernetes/client-node; run by test_client_node.py with KUBECONFIG set. Prints one JSON object.
import { createRequire } from "node:module";
import { Writable } from "node:stream";
import { deepStrictEqual as same, ok } from "node:assert";

const require = createRequire(process.env.NODE_MODULES_OF);
const k8s = require("@kubernetes/client-node");

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);
const namespace = "default";
const story = {};

async function code(promise) {
  try {
    await promise;
  } catch (error) {
    return error.code;
  }
  return 200;
}

// Typed objects and every kind of patch.
const body = { metadata: { name: "a", labels: { app: "x" } }, data: { k: "1" } };
await core.createNamespacedConfigMap({ namespace, body });
story.again = await code(core.createNamespacedConfigMap({ namespace, body }));
const patch = (content, how, extra = {}) =>
  core.patchNamespacedConfigMap({ name: "a", namespace, body: content, ...extra }, k8s.setHeaderOptions("Content-Type", how));
same((await patch([{ op: "add", path: "/data/l", value: "1" }], k8s.PatchStrategy.JsonPatch)).data, { k: "1", l: "1" });
same((await patch({ data: { k: null } }, k8s.PatchStrategy.MergePatch)).data, { l: "1" });
same((await patch({ data: { m: "2" } }, k8s.PatchStrategy.StrategicMergePatch)).data, { l: "1", m: "2" });
const applied = { apiVersion: "v1", kind: "ConfigMap", metadata: { name: "a" }, data: { m: "3" } };
story.conflict = await code(patch(applied, k8s.PatchStrategy.ServerSideApply, { fieldManager: "robot" }));
same((await patch(applied, k8s.PatchStrategy.ServerSideApply, { fieldManager: "robot", force: true })).data, { l: "1", m: "3" });

// Untyped objects, found by discovery.
await objects.create({ apiVersion: "v1", kind: "ConfigMap", metadata: { name: "b", namespace, labels: { app: "x" } } });
story.listed = (await objects.list("v1", "ConfigMap", namespace, undefined, undefined, undefined, undefined, "app=x")).items
  .map((each) => each.metadata.name);

// An informer.
const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`,
  () => core.listNamespacedConfigMap({ namespace, labelSelector: "app=x" }), "app=x");
story.events = [];
const waiting = [];
for (const sort of ["add", "update", "delete"]) {
  informer.on(sort, (obj) => {
    story.events.push(`${sort} ${obj.metadata.name}`);
    waiting.forEach((check) => check());
  });
}
const comes = (event) => new Promise((resolve) => {
  const check = () => story.events.includes(event) && resolve();
  waiting.push(check);
  check();
});
await informer.start();
await comes("add b");
await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: "c", labels: { app: "x" } } } });
await comes("add c");
await core.deleteNamespacedConfigMap({ name: "b", namespace });
await comes("delete b");
await informer.stop();

// A pod: watched until it runs, then a command in it and its log.
await core.createNamespacedPod({ namespace, body: JSON.parse(process.env.POD) });
const watch = new k8s.Watch(config);
await new Promise((resolve, reject) => {
  watch.watch(`/api/v1/namespaces/${namespace}/pods`, { fieldSelector: "metadata.name=p" }, (sort, pod) => {
    if (pod.status?.phase === "Running") resolve();
  }, reject).then((controller) => { story.stop = () => controller.abort(); });
});
story.stop();
delete story.stop;
let said = "";
const out = new Writable({ write(chunk, encoding, done) { said += chunk; done(); } });
const status = await new Promise((resolve, reject) => {
  new k8s.Exec(config).exec(namespace, "p", "main", ["sh", "-c", "echo hi; exit 3"], out, null, null, false, resolve).catch(reject);
});
story.exec = [said, status.status, status.details?.causes?.[0]?.message];
story.log = await core.readNamespacedPodLog({ name: "p", namespace });
story.missing = await code(core.readNamespacedPod({ name: "none", namespace }));
ok((await apps.listDeploymentForAllNamespaces()).items.length === 0);
console.log(JSON.stringify(story));
process.exit(0);
