// SPDX-License-Identifier: Apache-2.0
// Gives a running node a command and prints what it finds: ros2 run cpp_client client "find the red cup"
#include <chrono>
#include <string>

#include <rclcpp/rclcpp.hpp>
#include <std_msgs/msg/string.hpp>

#include <clip_seg_ros/msg/command_status.hpp>
#include <clip_seg_ros/msg/segmented_object_array.hpp>

int main(int argc, char ** argv)
{
  using clip_seg_ros::msg::CommandStatus;
  using clip_seg_ros::msg::SegmentedObjectArray;
  rclcpp::init(argc, argv);
  auto node = std::make_shared<rclcpp::Node>("cpp_client", "clip_seg");
  std_msgs::msg::String command;
  command.data = argc > 1 ? argv[1] : "find the red cup";

  auto publisher = node->create_publisher<std_msgs::msg::String>("command", 10);
  // Until the node answers, the command is repeated: nobody may listen yet.
  auto timer = node->create_wall_timer(std::chrono::seconds(1), [&] { publisher->publish(command); });
  auto status = node->create_subscription<CommandStatus>("status", 10, [&](CommandStatus::ConstSharedPtr message) {
    if (message->command == command.data) {
      timer->cancel();
      RCLCPP_INFO(node->get_logger(), "%s", message->message.c_str());
    }
  });
  auto objects = node->create_subscription<SegmentedObjectArray>(
    "objects", 10, [&](SegmentedObjectArray::ConstSharedPtr message) {
      for (const auto & item : message->objects) {  // without depth, the position is NaN
        RCLCPP_INFO(node->get_logger(), "%s: score %.2f, (%.3f, %.3f, %.3f) m in %s", item.prompt.c_str(), item.score,
          item.position.x, item.position.y, item.position.z, message->position_frame.c_str());
      }
    });
  rclcpp::spin(node);
  rclcpp::shutdown();
}
