"""Compiled loops of ``ucm``: the components of all sublevel sets of a contour map, and the tree of their joins."""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(cache=True)
def _find(root, cell):
    while root[cell] != cell:
        root[cell] = root[root[cell]]
        cell = root[cell]
    return cell


@numba.njit(cache=True)
def joins(ucm2, base, walls):
    """(leaf map, left, right, height): leaves are the 8-connected components of ``ucm2 <= base``, in raster order of their pixels.

    ucm2: float64 (h, w), both odd. walls: the cells above ``base``, flat, by ascending value. Join k makes node n + k of the nodes
    left[k] and right[k], where n is the number of leaves and nodes 0..n-1 are leaves; there are n - 1.
    """
    h, w = ucm2.shape
    flat = ucm2.ravel()
    root = np.arange(h * w).astype(np.int32)
    for y in range(h):
        for x in range(w):
            cell = y * w + x
            if flat[cell] > base:
                continue
            for dy, dx in ((0, -1), (-1, -1), (-1, 0), (-1, 1)):
                if y + dy >= 0 and 0 <= x + dx < w and flat[cell + dy * w + dx] <= base:
                    a, b = _find(root, cell), _find(root, cell + dy * w + dx)
                    root[max(a, b)] = min(a, b)
    node = np.full(h * w, -1, np.int32)  # of the component that a root cell stands for; -1 where it holds no pixel
    leaf_map = np.empty((h // 2, w // 2), np.int32)
    n = 0
    for y in range(h // 2):
        for x in range(w // 2):
            cell = _find(root, (2 * y + 1) * w + 2 * x + 1)
            if node[cell] < 0:
                node[cell] = n
                n += 1
            leaf_map[y, x] = node[cell]
    left, right, height = np.empty(n - 1, np.int32), np.empty(n - 1, np.int32), np.empty(n - 1)
    flooded = flat <= base
    count = 0
    for cell in walls:
        flooded[cell] = True
        y, x = cell // w, cell % w
        for ny in range(max(y - 1, 0), min(y + 2, h)):
            for nx in range(max(x - 1, 0), min(x + 2, w)):
                if not flooded[ny * w + nx]:
                    continue
                a, b = _find(root, cell), _find(root, ny * w + nx)
                if a == b:
                    continue
                node_of_both = max(node[a], node[b])
                if min(node[a], node[b]) >= 0:
                    left[count], right[count], height[count] = node[a], node[b], flat[cell]
                    node_of_both = n + count
                    count += 1
                # the wall cell's component goes into its neighbour's, never the large one under a lone cell
                root[a] = b
                node[b] = node_of_both
    return leaf_map, left, right, height


@numba.njit(cache=True)
def tree_of_joins(left, right, height, base):
    """(parent, height, leaf): the joins as a tree in preorder, where joins of one height that touch are one node.

    The child that holds the lowest leaf comes first. Leaves have height ``base``.
    """
    n = len(left) + 1
    nodes = 2 * n - 1
    lowest = np.arange(nodes).astype(np.int32)
    above = np.full(nodes, -1, np.int32)
    for k in range(n - 1):
        lowest[n + k] = min(lowest[left[k]], lowest[right[k]])
        above[left[k]] = above[right[k]] = n + k
    same = np.arange(nodes).astype(np.int32)  # the highest join of the node's height that it is part of
    for node in range(nodes - 2, n - 1, -1):
        if height[node - n] == height[above[node] - n]:
            same[node] = same[above[node]]
    by_lowest = np.argsort(lowest, kind="mergesort")
    child, sibling = np.full(nodes, -1, np.int32), np.full(nodes, -1, np.int32)
    for k in range(nodes - 1, -1, -1):
        node = by_lowest[k]
        if same[node] == node and above[node] >= 0:
            parent = same[above[node]]
            sibling[node], child[parent] = child[parent], node
    count = 0
    for node in range(nodes):
        count += same[node] == node
    new_parent, new_height = np.full(count, -1, np.int32), np.full(count, base)
    leaf, place = np.empty(n, np.int32), np.empty(nodes, np.int32)
    node, place_of_next = nodes - 1, 0
    while node >= 0:
        place[node] = place_of_next
        if above[node] >= 0:
            new_parent[place_of_next] = place[same[above[node]]]
        if node < n:
            leaf[node] = place_of_next
        else:
            new_height[place_of_next] = height[node - n]
        place_of_next += 1
        step = child[node]
        while step < 0 and node >= 0:
            step = sibling[node]
            node = same[above[node]] if above[node] >= 0 else -1
        node = step
    return new_parent, new_height, leaf
