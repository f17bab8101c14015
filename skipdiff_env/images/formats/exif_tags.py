"""Tags of EXIF 3.0's Exif directory (CIPA DC-008-2023, tables 5 to 14) that do not reveal the location.

The maker's private note is not among them, nor are the ambient conditions (0x9400 to 0x9403: temperature,
humidity, pressure, water depth), which say something about the location. Tags that are not in the standard
may hold anything, such as the blocks of other standards (IPTC, Photoshop, GeoTIFF) and makers' own data.
"""

from __future__ import annotations

TIMES = {
    "DateTimeOriginal": 0x9003, "DateTimeDigitized": 0x9004, "OffsetTime": 0x9010,
    "OffsetTimeOriginal": 0x9011, "OffsetTimeDigitized": 0x9012, "SubsecTime": 0x9290,
    "SubsecTimeOriginal": 0x9291, "SubsecTimeDigitized": 0x9292,
}  # fmt: skip

EXPOSURE = {
    "ExposureTime": 0x829A, "FNumber": 0x829D, "ExposureProgram": 0x8822, "SpectralSensitivity": 0x8824,
    "ISOSpeedRatings": 0x8827, "OECF": 0x8828, "SensitivityType": 0x8830,
    "StandardOutputSensitivity": 0x8831, "RecommendedExposureIndex": 0x8832, "ISOSpeed": 0x8833,
    "ISOSpeedLatitudeyyy": 0x8834, "ISOSpeedLatitudezzz": 0x8835, "ShutterSpeedValue": 0x9201,
    "ApertureValue": 0x9202, "BrightnessValue": 0x9203, "ExposureBiasValue": 0x9204,
    "MaxApertureValue": 0x9205, "SubjectDistance": 0x9206, "MeteringMode": 0x9207, "LightSource": 0x9208,
    "Flash": 0x9209, "FocalLength": 0x920A, "SubjectArea": 0x9214, "FlashEnergy": 0xA20B,
    "SpatialFrequencyResponse": 0xA20C, "FocalPlaneXResolution": 0xA20E, "FocalPlaneYResolution": 0xA20F,
    "FocalPlaneResolutionUnit": 0xA210, "SubjectLocation": 0xA214, "ExposureIndex": 0xA215,
    "SensingMethod": 0xA217, "FileSource": 0xA300, "SceneType": 0xA301, "CFAPattern": 0xA302,
    "CustomRendered": 0xA401, "ExposureMode": 0xA402, "WhiteBalance": 0xA403, "DigitalZoomRatio": 0xA404,
    "FocalLengthIn35mmFilm": 0xA405, "SceneCaptureType": 0xA406, "GainControl": 0xA407, "Contrast": 0xA408,
    "Saturation": 0xA409, "Sharpness": 0xA40A, "DeviceSettingDescription": 0xA40B,
    "SubjectDistanceRange": 0xA40C, "CompositeImage": 0xA460,
    "SourceImageNumberOfCompositeImage": 0xA461, "SourceExposureTimesOfCompositeImage": 0xA462,
}  # fmt: skip
"""SubjectLocation is a point of the picture, in pixels."""

MOTION = {"Acceleration": 0x9404, "CameraElevationAngle": 0x9405}

CODING = {
    "ExifVersion": 0x9000, "ComponentsConfiguration": 0x9101, "CompressedBitsPerPixel": 0x9102,
    "FlashPixVersion": 0xA000, "ColorSpace": 0xA001, "ExifImageWidth": 0xA002, "ExifImageHeight": 0xA003,
    "RelatedSoundFile": 0xA004, "Gamma": 0xA500,
}  # fmt: skip

OWNERS_AND_TOOLS = {
    "UserComment": 0x9286, "ImageUniqueID": 0xA420, "CameraOwnerName": 0xA430, "BodySerialNumber": 0xA431,
    "LensSpecification": 0xA432, "LensMake": 0xA433, "LensModel": 0xA434, "LensSerialNumber": 0xA435,
    "ImageTitle": 0xA436, "Photographer": 0xA437, "ImageEditor": 0xA438, "CameraFirmware": 0xA439,
    "RAWDevelopingSoftware": 0xA43A, "ImageEditingSoftware": 0xA43B, "MetadataEditingSoftware": 0xA43C,
}  # fmt: skip

PLACELESS = frozenset(
    tag for tags in (TIMES, EXPOSURE, MOTION, CODING, OWNERS_AND_TOOLS) for tag in tags.values()
)
