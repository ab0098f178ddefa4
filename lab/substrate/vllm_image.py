"""Step vllm: an image of a host on which the role ``vllm`` has installed its release.

Unpacking and compiling two gigabytes of Python takes minutes of both cores, the same on each host. The role itself does it here, once, on a bare one.
The lab's own ``lab_vllm.py`` is put beside it, which has it start with less work.
"""

from pathlib import Path

from . import images, venv, wheelhouse
from .steps import LAB, REPO, digest, run, say

PARENT, TAG = "bookworm-packages", "bookworm-vllm"
PLAYBOOK, HOOK = LAB / "image" / "vllm.yml", LAB / "image" / "lab_vllm.py"
ROLE = REPO / "roles" / "vllm"
# What decides which release is installed, and how.
SOURCES = (Path(__file__), PLAYBOOK, HOOK, *(ROLE / name for name in ("defaults/main.yml", "vars/main.yml", "tasks/install.yml")), wheelhouse.LOCK)
MOUNTED = "/srv/wheelhouse"
# Of the models of step model.
CLASS = "LlamaForCausalLM"
QUICKEN = f"""
set -eu
packages=$(echo /opt/vllm/current/lib/python3*/site-packages)
# Each of vLLM's workers asks for work without a pause for a second after the last: most of what they do, where several of them share two cores.
waits=$packages/vllm/distributed/device_communicators/shm_broadcast.py
grep -q 'busy_loop_s: float = 1,' $waits
sed -i 's/busy_loop_s: float = 1,/busy_loop_s: float = 0.01,/' $waits
/opt/vllm/current/bin/python -m compileall -q $waits
VLLM_CACHE_ROOT=/tmp/known /opt/vllm/current/bin/python -c "
from vllm.model_executor.models.registry import ModelRegistry
ModelRegistry.models['{CLASS}'].inspect_model_cls()
"
mv /tmp/known/modelinfos $packages/lab_vllm.known
chmod -R a+rX $packages/lab_vllm.known
cat > $packages/lab_vllm.py
echo 'import lab_vllm' > $packages/lab_vllm.pth
"""


def prepare() -> str | None:
    """Have the role install its release in a container, and keep that, where anything has changed."""
    recipe = digest(images.recipe_of(PARENT), *(path.read_text() for path in SOURCES))
    if images.recipe_of(TAG) == recipe:
        return None
    say("installing vLLM's release by its role")
    with images.container(TAG, f"{images.REPOSITORY}:{PARENT}", f"--volume={wheelhouse.WHEELHOUSE}:{MOUNTED}:ro") as name:
        variables = ("vllm_build=cpu", "vllm_install_source=wheelhouse", f"vllm_wheelhouse={MOUNTED}")
        run(
            [
                *(venv.python().with_name("ansible-playbook"), "--inventory", f"{name},", "--connection", "community.docker.docker"),
                *(word for variable in variables for word in ("--extra-vars", variable)),
                PLAYBOOK,
            ],
            env={"ANSIBLE_CONFIG": str(REPO / "ansible.cfg")},
            cwd=REPO,
            # Beside the tests, for which two cores are little.
            timeout=3600,
        )
        run(["docker", "exec", "--interactive", name, "sh", "-c", QUICKEN], stdin=HOOK.read_text())
        images.keep(name, TAG, recipe)
    return f"built {TAG}"
