"""An ament_python package; `colcon build` runs this. clipedge itself comes from pip, which rosdep does not know."""

from setuptools import setup

setup(
    name="clipedge_ros",
    version="0.1.0",
    packages=["clipedge_ros"],
    data_files=[
        ("share/ament_index/resource_index/packages", ["resource/clipedge_ros"]),
        ("share/clipedge_ros", ["package.xml"]),
    ],
    install_requires=["setuptools"],
    zip_safe=True,
    maintainer="ClipEdge",
    maintainer_email="clipedge@users.noreply.github.com",
    description="Classifies a camera's images with a ClipEdge bundle.",
    license="Apache-2.0",
    entry_points={"console_scripts": ["classifier = clipedge_ros.node:main"]},
)
