"Parts of a pipeline that need no network: tests can know every answer."
import numpy as np


class Five:
    "Five points in the middle of each box"
    def points(self, img, boxes):
        at = np.array([[.35, .4], [.65, .4], [.5, .6], [.38, .8], [.62, .8]])
        return np.stack([b[:2] + at*(b[2:] - b[:2]) for b in boxes]), np.full(len(boxes), 0.95)


class Colour:
    "The mean colour as an embedding"
    size, template = 112, "arcface"

    def embed(self, faces, **_):
        e = faces.reshape(len(faces), -1, 3).mean(1).astype(np.float32) - 100
        return e/np.linalg.norm(e, axis=1, keepdims=True)
