"""MuJoCo runs a layout at 2 kHz: poses, the first object's inertial sensors, and the force of every contact."""

# pyright: reportAttributeAccessIssue=false
# (mujoco's names come from a compiled module without stubs)

from __future__ import annotations

import math
from dataclasses import dataclass

import mujoco
import numpy as np
from mujoco import rollout

from .physics_scene import MASS, SCALE, Layout, Placement, Scene, half_extents

STEP = 0.0005  # seconds
SECONDS = 2.56
STEPS = round(SECONDS / STEP)
GRAVITY = 9.81
MALLET_RADIUS, MALLET_LENGTH, MALLET_MASS = 0.045, 0.75, 0.35
MALLET_RAISED, MALLET_SWING = 0.5, 0.2  # rad above the object, seconds of the downward swing
CONTACTS = {"ball": 1, "block": 4, "rod": 2}  # points on which it rests

# Restitution of a pair is the product of the two; half a contact lasts about 5 ms in the simulation.
BOUNCE = {"wood": 0.6, "metal": 0.68, "glass": 0.72, "rubber": 0.8, "stone": 0.54, "mallet": 0.6}
FLOOR_BOUNCE = {"wood": 0.84, "metal": 0.9, "glass": 0.92, "rubber": 0.76, "stone": 0.94}
SHAPE_BOUNCE = {"ball": 0.9, "block": 0.62, "rod": 0.62}
CONTACT_TIME, MALLET_CONTACT = 0.005, 0.002  # the shorter blow lets a struck object hop


@dataclass(frozen=True)
class Motion:
    """What happened, at `STEP` seconds a step.

    Args:
        position: object centres `[steps, objects, 3]`, m.
        rotation: body to world `[steps, objects, 3, 3]`.
        accelerometer: specific force of the first object in its own frame `[steps, 3]`, m/s².
        gyroscope: its angular velocity in its own frame `[steps, 3]`, rad/s.
        contacts: force `[steps]` (N, size of the vector) and place `[steps, 3]` by pair, e.g. `("floor", 0)`, `(0, 1)`.
        plate: vertical force on the floor `[steps]`, N.
        mallet: angle above the object `[steps]`, rad, with its pivot `[3]`; None without a mallet.
    """

    position: np.ndarray
    rotation: np.ndarray
    accelerometer: np.ndarray
    gyroscope: np.ndarray
    contacts: dict[tuple[str | int, int], tuple[np.ndarray, np.ndarray]]
    plate: np.ndarray
    mallet: tuple[np.ndarray, np.ndarray] | None


def mass_of(scene: Scene, k: int) -> float:
    """Mass of object `k` in kg."""
    return MASS[scene.materials[k]] * (SCALE[scene.size] / SCALE["medium"]) ** 1.5


def run(scene: Scene, layout: Layout) -> Motion:
    """Simulate a layout for the length of a clip; the objects hang still for `layout.hold` seconds first.

    A negative hold starts the clip after that time, when what slides on the floor does so evenly.
    """
    model = mujoco.MjModel.from_xml_string(_xml(scene, layout))
    data = mujoco.MjData(model)
    for k, place in enumerate(layout.placements):
        rotation = _matrix(place.euler)
        data.qpos[7 * k : 7 * k + 3] = place.position
        data.qpos[7 * k + 2] -= _sag(scene)  # what lies on the floor presses on it from the first step on
        quaternion = np.empty(4)
        mujoco.mju_mat2Quat(quaternion, rotation.ravel())
        data.qpos[7 * k + 3 : 7 * k + 7] = quaternion
        data.qvel[6 * k : 6 * k + 3] = place.velocity
        data.qvel[6 * k + 3 : 6 * k + 6] = rotation.T @ np.array(place.spin)
    if layout.strikes:
        data.qpos[-1] = MALLET_RAISED
    kind = mujoco.mjtState.mjSTATE_FULLPHYSICS
    start = np.empty(mujoco.mj_stateSize(model, kind))
    mujoco.mj_getState(model, data, start, kind)
    held = round(layout.hold / STEP)
    control = _swing(layout)[None, :, None] if layout.strikes else None
    states, sensors = map(np.asarray, rollout.rollout(model, data, start[None], control, nstep=STEPS - held))
    states = np.concatenate([start[None], states[0, :-1]])  # sensors of step i belong to the state before it
    return _collect(scene, layout, states, sensors[0], held)


def _collect(scene: Scene, layout: Layout, states: np.ndarray, sensors: np.ndarray, held: int) -> Motion:
    def pad(values: np.ndarray) -> np.ndarray:
        if held < 0:
            return values[-held:]
        return np.concatenate([np.repeat(values[:1], held, 0), values])

    n = scene.count
    poses = states[:, 1 : 1 + 7 * n].reshape(-1, n, 7)  # time comes first
    inertial, contact = sensors[:, :6].copy(), sensors[:, 6:]
    pairs, contacts = _pairs(scene, layout), {}
    for pair, values in zip(pairs, np.split(contact, len(pairs), 1), strict=True):
        contacts[pair] = (pad(np.linalg.norm(values[:, :3], axis=1)), pad(values[:, 3:]))
        contacts[pair][0][: max(held, 0)] = 0.0
    plate = pad(contact[:, 2 : 6 * n : 6].sum(1))  # the first pairs are those with the floor
    rotation = pad(_quaternion_matrix(poses[..., 3:]))
    accelerometer, gyroscope = pad(inertial[:, :3]), pad(inertial[:, 3:])
    accelerometer[: max(held, 0)] = rotation[0, 0].T @ np.array([0, 0, GRAVITY])
    gyroscope[: max(held, 0)] = 0.0
    mallet = (states[:, 1 + 7 * n], _pivot(scene, layout.placements[0])) if layout.strikes else None
    return Motion(pad(poses[..., :3]), rotation, accelerometer, gyroscope, contacts, plate, mallet)


def _pairs(scene: Scene, layout: Layout) -> list[tuple[str | int, int]]:
    pairs: list[tuple[str | int, int]] = [("floor", k) for k in range(scene.count)]
    if scene.count == 2:
        pairs.append((0, 1))
    return [*pairs, ("mallet", 0)] if layout.strikes else pairs


def _pivot(scene: Scene, place: Placement) -> np.ndarray:
    top = place.position[2] + half_extents(scene.shape, scene.size)[2]
    return np.array([place.position[0] + MALLET_LENGTH, place.position[1], top + MALLET_RADIUS])


def _swing(layout: Layout) -> np.ndarray:
    """Target angle of the mallet `[steps]`: raised, down through the object at each strike time, up again."""
    time = np.arange(STEPS) * STEP
    angle = np.full(STEPS, MALLET_RAISED)
    for strike in layout.strikes:
        phase = np.clip((time - strike) / MALLET_SWING, -1, 1)
        down = MALLET_RAISED - (MALLET_RAISED + 0.1) * (0.5 + 0.5 * np.cos(np.pi * phase))
        angle = np.minimum(angle, down)
    return angle


def _xml(scene: Scene, layout: Layout) -> str:
    bodies, pairs, sensors = "", "", ""
    a, b, c = half_extents(scene.shape, scene.size)
    geom = {
        "ball": f'type="sphere" size="{c}"',
        "block": f'type="box" size="{a} {b} {c}"',
        "rod": f'type="capsule" size="{c} {a - c}" euler="0 90 0"',
    }[scene.shape]
    for k in range(scene.count):
        bodies += f'<body><freejoint/><geom name="{k}" {geom} mass="{mass_of(scene, k)}"/><site name="{k}"/></body>'
    if layout.strikes:
        x, y, z = _pivot(scene, layout.placements[0])
        bodies += (
            f'<body pos="{x} {y} {z}" gravcomp="1"><joint name="swing" axis="0 1 0" damping="0.6"/>'
            f'<geom name="mallet" type="sphere" size="{MALLET_RADIUS}" pos="{-MALLET_LENGTH} 0 0" '
            f'mass="{MALLET_MASS}"/>'
            "</body>"
        )
    for one, two in _pairs(scene, layout):
        bounce = BOUNCE[scene.materials[two]] * SHAPE_BOUNCE[scene.shape]
        if one == "floor":
            bounce *= FLOOR_BOUNCE[scene.floor]
        else:
            bounce = math.sqrt(bounce * BOUNCE["mallet" if one == "mallet" else scene.materials[0]])
        rigid = _rigidity(scene)
        slip = 0.2 if scene.action == "collide" and scene.shape == "block" else 0.45
        roll = _rolling_friction(scene) * c / 0.1 if one == "floor" else 0.0
        pairs += (
            f'<pair geom1="{one}" geom2="{two}" condim="{3 if scene.shape == "block" else 6}" '
            f'friction="{slip} {slip} 0.004 {roll} {roll}" solimp="{rigid} {rigid} 0.001" '
            f'solref="{_solref(bounce, MALLET_CONTACT if one == "mallet" else CONTACT_TIME)}"/>'
        )
        sensors += f'<contact geom1="{one}" geom2="{two}" num="1" reduce="netforce" data="force pos"/>'
    actuator = '<position joint="swing" kp="60" kv="2"/>' if layout.strikes else ""
    return (
        f'<mujoco><compiler angle="degree"/><option timestep="{STEP}" integrator="implicitfast" cone="elliptic" '
        f'iterations="12" gravity="0 0 -{GRAVITY}"/><default><geom contype="0" conaffinity="0"/></default><worldbody>'
        f'<geom name="floor" type="plane" size="0 0 1"/>{bodies}</worldbody><contact>{pairs}</contact>'
        f'<actuator>{actuator}</actuator><sensor><accelerometer site="0"/><gyro site="0"/>{sensors}</sensor></mujoco>'
    )


def _rolling_friction(scene: Scene) -> float:
    """MuJoCo's coefficient (m) for a radius of 0.1 m; what is knocked away in a collision shall stay in the picture."""
    if scene.action == "collide":
        return 0.008
    return 0.005 if scene.shape == "ball" else 0.004


def _rigidity(scene: Scene) -> float:
    """MuJoCo's impedance; low for struck objects: a true spring, which gives way under the mallet."""
    return 0.1 if scene.action == "struck" else 0.98


def _sag(scene: Scene) -> float:
    """How deep (m) an object at rest presses into the spring of its contact."""
    return (1 - _rigidity(scene)) * GRAVITY * (CONTACT_TIME / math.pi) ** 2 / CONTACTS[scene.shape]


def _solref(bounce: float, seconds: float) -> str:
    """MuJoCo's (time constant, damping ratio) for a coefficient of restitution: e = exp(-πζ / √(1 - ζ²))."""
    decay = -math.log(bounce)
    damping = decay / math.hypot(math.pi, decay)
    frequency = math.pi / seconds / math.sqrt(1 - damping**2)
    return f"{1 / (frequency * damping)} {damping}"


def _matrix(euler: tuple[float, float, float]) -> np.ndarray:
    """Body-to-world rotation `[3, 3]` of Euler angles (about z, then y, then x, each in the turned frame)."""
    (cz, cy, cx), (sz, sy, sx) = np.cos(euler), np.sin(euler)
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    return about_z @ about_y @ about_x


def _quaternion_matrix(q: np.ndarray) -> np.ndarray:
    """Rotation matrices `[..., 3, 3]` of unit quaternions (w, x, y, z) `[..., 4]`."""
    w, x, y, z = np.moveaxis(q, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)
